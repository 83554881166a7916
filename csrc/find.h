/* Finding bytes in bytes, in time that is linear in both and without memory: memmem(3), which Windows and ISO C don't
 * have; elsewhere the includer has _GNU_SOURCE defined. SF_PORTABLE has the one that is written here used everywhere. */
#ifndef SOCKFRAME_FIND_H
#define SOCKFRAME_FIND_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32) || defined(SF_PORTABLE)

/* Where the greatest of all ends of `word` begins, by the order of bytes or by the reverse one, and its period. */
static inline size_t sf_greatest_end(const uint8_t *word, size_t length, int reverse, size_t *period)
{
    size_t begin = 0, other = 1, same = 0; /* word[other ..) is compared, `same` bytes were equal */
    *period = 1;
    while (other + same < length) {
        uint8_t mine = word[begin + same], its = word[other + same];
        if (mine == its) {
            if (++same == *period) {
                other += *period;
                same = 0;
            }
        } else if (reverse ? its > mine : its < mine) {
            other += same + 1;
            same = 0;
            *period = other - begin;
        } else {
            begin = other++;
            same = 0;
            *period = 1;
        }
    }
    return begin;
}

/* Where `word` begins in data[0 .. size), or NULL. Two-way search (Crochemore and Perrin, 1991): the word is cut where its
 * right part can't overlap itself by less than a period; that part is compared first, and tells how far to go on. */
static inline const uint8_t *sf_find(const uint8_t *data, size_t size, const uint8_t *word, size_t length)
{
    size_t period, other_period, at = 0, known = 0, i;
    size_t cut = sf_greatest_end(word, length, 0, &period);
    size_t other_cut = sf_greatest_end(word, length, 1, &other_period);
    int repeats;
    if (other_cut > cut) {
        cut = other_cut;
        period = other_period;
    }
    repeats = cut + period <= length && !memcmp(word, word + period, cut);
    if (!repeats)
        period = (cut > length - cut ? cut : length - cut) + 1;
    while (size >= length && at <= size - length) {
        for (i = cut > known ? cut : known; i < length && word[i] == data[at + i]; i++)
            ;
        if (i < length) {
            at += i - cut + 1;
            known = 0;
            continue;
        }
        for (i = cut; i > known && word[i - 1] == data[at + i - 1]; i--)
            ;
        if (i <= known)
            return data + at;
        at += period;
        known = repeats ? length - period : 0; /* bytes that need no second look */
    }
    return NULL;
}

#else

static inline const uint8_t *sf_find(const uint8_t *data, size_t size, const uint8_t *word, size_t length)
{
    return memmem(data, size, word, length);
}

#endif
#endif
