/* A reader of tests/vectors: lines of words, in one pass; whatever it does not know is an error. */
#include "vectors.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH 4

static const char *const names[] = {
    "NONE", "TOO_LONG", "NEGATIVE", "TOO_SHORT", "DIGIT", "LEADING_ZERO", "DIGITS", "SEPARATOR", "END",
    "VARINT_LONG", "VARINT_CANONICAL", "BARE", "TAG", "HEADER_LONG", "HEADER_LINE", "HEADER_FIELD", "STUFFING",
    "WRAP_TOO_LONG", "WRAP_CAPACITY", "WRAP_DELIMITER", "WRAP_UNENDED", "WRAP_SIZE", "WRAP_SCALE", "WRAP_FIELD",
    "WRAP_SHORT", "WRAP_TAG", "WRAP_LAST",
};
_Static_assert(sizeof names / sizeof *names == SF_FAULTS, "a name for every fault");

const char *fault_name(int fault) { return fault >= 0 && fault < SF_FAULTS ? names[fault] : "?"; }

/* ---- memory: kept in a chain, freed at once ---- */

typedef struct chunk { struct chunk *before; max_align_t start[]; } chunk;
static chunk *chunks;

static void *keep(size_t size)
{
    chunk *new = calloc(1, sizeof(chunk) + size);
    if (!new) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    new->before = chunks;
    chunks = new;
    return new->start;
}

void free_vectors(void)
{
    while (chunks) {
        chunk *before = chunks->before;
        free(chunks);
        chunks = before;
    }
}

/* Room for one more behind `count` items of `size` bytes: the items, moved where that number is a power of two. */
static void *grown(void *items, size_t count, size_t size)
{
    if (count & (count - 1) || (count == 0 && items))
        return items;
    void *new = keep(2 * (count + 1) * size);
    if (count)
        memcpy(new, items, count * size);
    return new;
}

/* ---- words ---- */

static struct { const char *path; int line; char *at; } here;

static void bad(const char *what)
{
    fprintf(stderr, "%s:%d: %s at: %s\n", here.path, here.line, what, here.at);
    exit(2);
}

static int skip(const char *text)
{
    size_t size = strlen(text);
    if (strncmp(here.at, text, size))
        return 0;
    here.at += size;
    return 1;
}

static void expect(const char *text)
{
    if (!skip(text))
        bad(text);
}

static uint64_t take_number(void)
{
    char *end;
    if (!isdigit((unsigned char)*here.at))
        bad("a number is missing");
    uint64_t number = strtoull(here.at, &end, 10);
    here.at = end;
    return number;
}

static char *take_word(void)
{
    size_t size = strcspn(here.at, " ");
    char *word = keep(size + 1);
    memcpy(word, here.at, size);
    here.at += size;
    (void)skip(" ");
    return word;
}

static int hex_digit(char digit)
{
    const char *all = "0123456789abcdef", *found = digit ? strchr(all, digit) : NULL;
    return found ? (int)(found - all) : -1;
}

static uint8_t take_hex(void)
{
    int high = hex_digit(here.at[0]), low = high < 0 ? -1 : hex_digit(here.at[1]);
    if (low < 0)
        bad("two hexadecimal digits are missing");
    here.at += 2;
    return (uint8_t)(16 * high + low);
}

static uint8_t take_character(void)
{
    static const char escapes[] = "rnt\\\"", meant[] = "\r\n\t\\\"";
    if (!*here.at)
        bad("the quote is not closed");
    if (!skip("\\"))
        return (uint8_t)*here.at++;
    if (skip("x"))
        return take_hex();
    if (skip("0"))
        return 0;
    const char *found = *here.at ? strchr(escapes, *here.at) : NULL;
    if (!found)
        bad("unknown escape");
    here.at++;
    return (uint8_t)meant[found - escapes];
}

static bytes take_bytes(void)
{
    bytes all = {NULL, 0};
    do {
        size_t room = strlen(here.at) + 1, size = 0;
        uint8_t *term = keep(room);
        if (skip("\""))
            while (!skip("\""))
                term[size++] = take_character();
        else
            do
                term[size++] = take_hex();
            while (hex_digit(*here.at) >= 0);
        size_t times = skip("*") ? (size_t)take_number() : 1;
        uint8_t *joined = keep(all.size + size * times + 1);
        if (all.size)
            memcpy(joined, all.data, all.size);
        for (; times; times--) {
            memcpy(joined + all.size, term, size);
            all.size += size;
        }
        all.data = joined;
    } while (skip("+"));
    return all;
}

static int take_fault(void)
{
    const char *word = take_word();
    for (int fault = 1; fault < SF_FAULTS; fault++)
        if (!strcmp(names[fault], word))
            return fault;
    bad("unknown fault");
    return 0;
}

static wrong take_wrong(int seen)
{
    wrong found = {take_fault(), 0, 0, 0};
    found.number = take_number();
    expect(" ");
    found.limit = take_number();
    if (seen) {
        expect(" ");
        found.seen = take_number();
    }
    return found;
}

static int at_end(void) { return !*here.at; }

/* ---- lines ---- */

static void take_spec(sf_framing *framing)
{
    framing->kind = sf_kind_named(take_word());
    if (!framing->kind)
        bad("unknown kind");
    framing->max_length = take_number();
    expect(" ");
    if (!skip("-"))
        for (int i = 0; i < SF_NUMBERS; i++) {
            framing->number[i] = take_number();
            if (!skip(","))
                break;
        }
    expect(" ");
    sf_text *texts = NULL;
    if (!skip("-"))
        do {
            bytes text = take_bytes();
            texts = grown(texts, framing->texts, sizeof *texts);
            texts[framing->texts].data = text.data;
            texts[framing->texts++].size = text.size;
        } while (skip(","));
    framing->text = texts;
    if (skip(" skip"))
        framing->overlong = SF_OVERLONG_SKIP;
    else if (skip(" truncate"))
        framing->overlong = SF_OVERLONG_TRUNCATE;
}

static void take_child(sf_framing *parent)
{
    uint64_t number = take_number();
    while (skip(".")) {
        if (!number || number > parent->children)
            bad("a child without parent");
        parent = (sf_framing *)(uintptr_t)parent->child[number - 1];
        number = take_number();
    }
    expect(" ");
    if (number != parent->children + 1)
        bad("children are not in order");
    sf_framing *child = keep(sizeof *child);
    take_spec(child);
    const sf_framing **family = (const sf_framing **)(uintptr_t)parent->child;
    family = grown(family, parent->children, sizeof *family);
    family[parent->children++] = child;
    parent->child = family;
}

static void take_outcome(stream_case *stream, const block *now, const char *word)
{
    if (stream->good != UINT64_MAX)
        bad("the stream has ended already");
    if (!strcmp(word, "frame")) {
        do {
            stream->frame = grown(stream->frame, stream->frames, sizeof *stream->frame);
            stream->frame[stream->frames++] = take_bytes();
        } while (skip(" "));
    } else if (!strcmp(word, "clean")) {
        stream->good = stream->data.size;
        stream->need = now->least;
    } else if (!strcmp(word, "skipped")) {
        stream->skipped = take_number();
    } else if (!strcmp(word, "left")) {
        stream->held = take_number();
        stream->good = stream->data.size - stream->held;
        expect(" need ");
        stream->need = take_number();
        if (skip(" held "))
            stream->held = take_number();
        if (skip(" last ")) {
            stream->ending = DELIVERS;
            stream->last = take_bytes();
        } else if (skip(" fault ")) {
            stream->at_end = take_wrong(1);
        } else if (skip(" skipped")) {
            stream->ending = SKIPS;
        } else if (skip(" clean")) {
            stream->ending = IS_CLEAN;
        }
    } else if (!strcmp(word, "fault")) {
        stream->fault = take_wrong(1);
        expect(" at ");
        stream->good = take_number();
    } else {
        bad("unknown word");
    }
}

static void take_encode(block *now, int refused)
{
    now->encode = grown(now->encode, now->encodes, sizeof *now->encode);
    encode_case *new = &now->encode[now->encodes++];
    memset(new, 0, sizeof *new);
    new->line = here.line;
    new->payload = take_bytes();
    expect(" ");
    if (refused) {
        new->refused = take_wrong(0);
        return;
    }
    new->wire = take_bytes();
    new->back = skip(" ") ? take_bytes() : new->payload;
}

static void take_line(vector_file *file)
{
    const char *word = take_word();
    block *now = file->blocks ? &file->block[file->blocks - 1] : NULL;
    if (!strcmp(word, "wrong"))
        return; /* for Python */
    if (!strcmp(word, "framing")) {
        file->block = grown(file->block, file->blocks, sizeof *file->block);
        now = &file->block[file->blocks++];
        memset(now, 0, sizeof *now);
        now->line = here.line;
        return;
    }
    if (!now)
        bad("a case without framing");
    else if (!strcmp(word, "spec"))
        take_spec(&now->framing);
    else if (!strcmp(word, "child"))
        take_child(&now->framing);
    else if (!strcmp(word, "least"))
        now->least = take_number();
    else if (!strcmp(word, "stream")) {
        now->stream = grown(now->stream, now->streams, sizeof *now->stream);
        stream_case *new = &now->stream[now->streams++];
        memset(new, 0, sizeof *new);
        new->line = here.line;
        new->good = UINT64_MAX;
        new->data = take_bytes();
    } else if (!strcmp(word, "encode"))
        take_encode(now, 0);
    else if (!strcmp(word, "refuse"))
        take_encode(now, 1);
    else if (now->streams)
        take_outcome(&now->stream[now->streams - 1], now, word);
    else
        bad("unknown word");
    if (!at_end())
        bad("more than expected");
}

vector_file read_vectors(const char *path)
{
    const char *slash = strrchr(path, '/');
    vector_file file = {slash ? slash + 1 : path, NULL, 0};
    static char line[4096];
    FILE *input = fopen(path, "r");
    here.path = path;
    here.line = 0;
    if (!input) {
        perror(path);
        exit(2);
    }
    while (fgets(line, sizeof line, input)) {
        size_t size = strlen(line);
        here.line++;
        here.at = line;
        if (!size || line[size - 1] != '\n')
            bad("the line is too long or not ended");
        line[size - 1] = 0;
        if (*line && *line != '#')
            take_line(&file);
    }
    fclose(input);
    for (size_t i = 0; i < file.blocks; i++) {
        const block *one = &file.block[i];
        here.at = line;
        here.line = one->line;
        if (!one->framing.kind || strncmp(file.name, one->framing.kind->name, strlen(one->framing.kind->name)))
            bad("a block of another kind");
        for (size_t j = 0; j < one->streams; j++) {
            here.line = one->stream[j].line;
            if (one->stream[j].good > one->stream[j].data.size)
                bad("the stream has no end");
        }
    }
    return file;
}
