/* Memory between two pages that can't be touched: one byte too far, on either side, ends the program. */
#ifndef SOCKFRAME_TEST_GUARD_H
#define SOCKFRAME_TEST_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#undef far /* they are words of 16 bits */
#undef near
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

typedef struct { uint8_t *low; size_t room; } guard;

#ifdef _WIN32
static inline guard guard_make(size_t least)
{
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    size_t page = system.dwPageSize, room = (least / page + 1) * page;
    uint8_t *map = VirtualAlloc(NULL, room + 2 * page, MEM_RESERVE, PAGE_NOACCESS);
    if (!map || !VirtualAlloc(map + page, room, MEM_COMMIT, PAGE_READWRITE)) {
        fputs("guard pages\n", stderr);
        exit(2);
    }
    return (guard){map + page, room};
}
#else
static inline guard guard_make(size_t least)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (least / page + 1) * page;
    uint8_t *map = mmap(NULL, room + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) || mprotect(map + page + room, page, PROT_NONE)) {
        perror("guard pages");
        exit(2);
    }
    return (guard){map + page, room};
}
#endif

/* A copy of the bytes that ends where the memory ends, or begins where it begins. */
static inline const uint8_t *guard_end(const guard *memory, const uint8_t *data, uint64_t size)
{
    uint8_t *place = memory->low + memory->room - size;
    if (size)
        memcpy(place, data, (size_t)size);
    return place;
}

static inline const uint8_t *guard_start(const guard *memory, const uint8_t *data, uint64_t size)
{
    if (size)
        memcpy(memory->low, data, (size_t)size);
    return memory->low;
}

#endif
