/* The search by blocks: every byte of a set is found where it is, once and in order, in bytes of every size up to some
 * blocks, against a guard page behind them and again against one in front; and many frames at once are those that a
 * reading of one byte after the other finds, in streams of many lines. And words are found in bytes. Built with the
 * vectors that the machine has, and with SF_PORTABLE. */
#define _GNU_SOURCE
#include <inttypes.h>

#include "../find.h"
#include "../kind.h"
#include "../search.h"
#include "guard.h"

#define MOST 300 /* bytes: four blocks and some */

static unsigned long passed, failed;
static guard memory;
static uint64_t seed = UINT64_C(0x9E3779B97F4A7C15);

static uint64_t chance(uint64_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (seed >> 33) % below;
}

static void check(int fine, const char *what, uint64_t size, unsigned count)
{
    if (fine) {
        passed++;
    } else if (failed++ < 20) {
        printf("%s: wrong in %" PRIu64 " bytes, of a set of %u\n", what, size, count);
    }
}

static const uint8_t *place(const uint8_t *data, uint64_t size, int behind)
{
    return behind ? guard_end(&memory, data, size) : guard_start(&memory, data, size);
}

/* Search from `from` on, as `far` says, and compare with a loop. */
static int finds_all(const sf_set *set, const uint8_t *data, uint64_t from, uint64_t size, unsigned far)
{
    sf_search search = {.next = from, .far = far};
    for (uint64_t i = from; i < size; i++)
        if (sf_set_has(set, data[i]) && sf_next(&search, set, data, size) != i)
            return 0;
    return sf_next(&search, set, data, size) == size && sf_next(&search, set, data, size) == size;
}

/* `rare` bytes of others for one of the set. The bytes next to those of the set, and those that differ from them in
 * the highest bit, are the ones that arithmetic on whole words confuses. */
static void test_search(unsigned count, uint64_t rare)
{
    uint8_t data[MOST];
    sf_set set = {0};
    while (set.count < count)
        sf_set_add(&set, (uint8_t)chance(256));
    for (uint64_t size = 0; size <= MOST; size++) {
        for (uint64_t i = 0; i < size; i++) {
            uint8_t member = set.byte[chance(count < SF_SET_FEW ? count : SF_SET_FEW)];
            static const uint8_t near[] = {1, 0x80, 0xFF, 0x81, 0x7F};
            data[i] = chance(rare + 1) ? (uint8_t)(member ^ near[chance(sizeof near)]) : member;
        }
        for (int behind = 0; behind < 2; behind++) {
            const uint8_t *held = place(data, size, behind);
            int fine = 1;
            for (uint64_t from = 0; from <= size; from += 1 + chance(40))
                fine &= finds_all(&set, held, from, size, 0) && finds_all(&set, held, from, size, SF_FAR);
            check(fine, "search", size, count);
        }
    }
}

/* Many frames at once, and what `scan` says of the next one, against `scan` alone given one byte after the other. */
static int same_frames(const sf_framing *framing, const uint8_t *data, uint64_t size, size_t most)
{
    sf_span spans[MOST];
    uint64_t used, searched, at = 0, end = 0;
    size_t count = framing->kind->frames(framing, data, size, spans, most, &used, &searched), known = 0;
    sf_scan scan;
    sf_scan_begin(&scan);
    int status = SF_NEED;
    while (known < most && end <= size) {
        status = sf_scan_frame(framing, data + at, end - at, &scan);
        if (status == SF_FRAME) {
            if (known == count || spans[known].start != at + scan.start || spans[known].stop != at + scan.stop)
                return 0;
            known++;
            at += scan.size;
            sf_scan_begin(&scan);
        } else if (status == SF_NEED) {
            end++;
        } else {
            break;
        }
    }
    if (known != count || used != at)
        return 0;
    if (count == most)
        return 1;
    sf_scan rest;
    sf_scan_begin(&rest);
    rest.resume = searched;
    int again = sf_scan_frame(framing, data + at, size - at, &rest);
    return searched <= size - at && again == status && (status != SF_NEED || rest.need == scan.need) &&
           (status != SF_FAULT || (rest.fault == scan.fault && rest.seen == scan.seen && rest.number == scan.number));
}

static void test_frames(const sf_framing *framing, const char *name, const char *letters)
{
    uint8_t data[MOST];
    size_t kinds = strlen(letters);
    for (uint64_t size = 0; size <= MOST; size++) {
        uint64_t rare = 1 + chance(80); /* so that some streams have long lines, and some empty ones */
        for (uint64_t i = 0; i < size; i++) {
            data[i] = (uint8_t)(chance(rare) ? 'x' : letters[chance(kinds)]);
            if (data[i] == '\r' && i + 1 < size && chance(8))
                data[++i] = '\n';
        }
        for (int behind = 0; behind < 2; behind++) {
            const uint8_t *held = place(data, size, behind);
            check(same_frames(framing, held, size, MOST) && same_frames(framing, held, size, 1 + (size_t)chance(4)) &&
                      same_frames(framing, held, size, 0),
                  name, size, (unsigned)framing->texts);
        }
    }
}

static void test_delimiters(void)
{
    static const struct { const char *text[8]; const char *letters; } lists[] = {
        {{"\n"}, "\n"},
        {{"\r\n"}, "\r\n"},
        {{"\r\n", "\n"}, "\r\n"},
        {{"abc"}, "abc"},
        {{"\n", "\r", ";"}, "\n\r;"},
        {{"ab", "bc", "cad"}, "abcd"},
        {{"xxa", "xa", "bx", "x\n"}, "ab\n"},
        {{"a", "b", "c", "d", "ex", "f"}, "abcdef"}, /* more than are compared one by one */
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        sf_text text[8];
        sf_framing framing = {.kind = sf_kind_named("delimiter"), .text = text};
        for (; framing.texts < 8 && lists[i].text[framing.texts]; framing.texts++) {
            text[framing.texts].data = (const uint8_t *)lists[i].text[framing.texts];
            text[framing.texts].size = strlen(lists[i].text[framing.texts]);
        }
        for (int keep = 0; keep < 2; keep++) {
            framing.number[0] = (uint64_t)keep;
            framing.max_length = INT64_MAX;
            test_frames(&framing, "delimiter", lists[i].letters);
            framing.max_length = 20;
            test_frames(&framing, "delimiter, at most 20 bytes", lists[i].letters);
        }
    }
}

static void test_lines(void)
{
    sf_framing framing = {.kind = sf_kind_named("crlf"), .max_length = INT64_MAX};
    test_frames(&framing, "crlf", "\r\r\r\r\r\n");
    test_frames(&framing, "crlf", "\r");
    framing.max_length = 20;
    test_frames(&framing, "crlf, at most 20 bytes", "\r");
}

/* Lengths of every width and order, the last of them so near the end that no eight bytes may be read. */
static void test_lengths(void)
{
    for (uint64_t width = 1; width <= 8; width++)
        for (uint64_t little = 0; little < 2; little++) {
            sf_framing framing = {.kind = sf_kind_named("length_prefix"), .max_length = 40, .number = {width, little, 0}};
            for (uint64_t size = 0; size <= MOST; size++) {
                uint8_t data[MOST] = {0};
                for (uint64_t at = 0; at + width <= size;) {
                    uint64_t length = chance(12);
                    data[at + (little ? 0 : width - 1)] = (uint8_t)length;
                    at += width + length;
                }
                if (size && !chance(4))
                    data[chance(size)] = 0x80; /* which may make a length too long */
                for (int behind = 0; behind < 2; behind++)
                    check(same_frames(&framing, place(data, size, behind), size, MOST), "length_prefix", size,
                          (unsigned)width);
            }
        }
}

/* Words of few letters, most of which are in the bytes or nearly so, each beginning anew in itself. */
static void test_words(unsigned letters)
{
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t data[MOST], word[40];
        size_t size = (size_t)chance(MOST + 1), length = (size_t)(1 + chance(chance(2) ? 5 : sizeof word));
        size_t period = (size_t)(1 + chance(6)), at = 0;
        for (size_t i = 0; i < length; i++)
            word[i] = i < period || !chance(20) ? (uint8_t)chance(letters) : word[i - period];
        for (size_t i = 0; i < size; i++)
            data[i] = i < period || !chance(30) ? (uint8_t)chance(letters) : chance(40) ? data[i - period] : word[0];
        if (size >= length && chance(2))
            memcpy(data + chance(size - length + 1), word, length);
        while (at + length <= size && memcmp(data + at, word, length))
            at++;
        for (int behind = 0; behind < 2; behind++) {
            const uint8_t *placed = place(data, size, behind);
            check(sf_find(placed, size, word, length) == (at + length <= size ? placed + at : NULL), "a word", size,
                  letters);
        }
    }
}

/* By a loop in a loop this would take an hour. */
static void test_long_words(void)
{
    size_t size = (size_t)1 << 22, length = size / 2;
    uint8_t *data = calloc(size, 1), *word = calloc(length, 1);
    if (!data || !word)
        exit(2);
    for (size_t at = 0; at < length; at += length / 4) {
        word[at] = 1;
        check(sf_find(data, size, word, length) == NULL, "a long word", size, 1);
        data[size - length + at] = 1;
        check(sf_find(data, size, word, length) == data + size - length, "a long word at the end", size, 1);
        memset(data, 0, size);
        memset(word, 0, length);
    }
    free(data);
    free(word);
}

int main(void)
{
    memory = guard_make(MOST);
    for (unsigned letters = 1; letters <= 3; letters++)
        test_words(letters);
    test_long_words();
    for (unsigned count = 1; count <= 6; count++)
        for (uint64_t rare = 0; rare <= 100; rare += rare ? rare * 2 : 3)
            test_search(count, rare);
    test_search(256, 3);
    test_delimiters();
    test_lines();
    test_lengths();
#ifdef SF_SSE2
    const char *by = "SSE2";
#elif defined(SF_NEON)
    const char *by = "NEON";
#else
    const char *by = "no vectors";
#endif
    printf("test_search, %s: %lu passed, %lu failed\n", by, passed, failed);
    return failed || !passed;
}
