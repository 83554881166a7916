/* Many payloads into frames, one behind the other. */
#include "kind.h"

/* Most headers are of 8 bytes or fewer: one store, where there is room for it. */
static inline uint8_t *put(uint8_t *target, const uint8_t *data, uint64_t size)
{
    if (size <= 8)
        memcpy(target, data, 8);
    else
        memcpy(target, data, (size_t)size);
    return target + size;
}

size_t sf_wrap_many(const sf_framing *framing, const sf_text *payloads, size_t count, uint64_t largest,
                    uint64_t enough, uint8_t *target, uint64_t *used)
{
    sf_wrapped out;
    uint64_t at = 0;
    size_t done = 0;
    for (; done < count && at < enough; done++) {
        const sf_text *payload = &payloads[done];
        if (sf_wrap_frame(framing, payload->data, payload->size, &out) < 0 || out.last || out.object)
            break;
        if (!target)
            continue;
        uint64_t around = (uint64_t)out.header_size + out.trailer_size;
        if (out.body_size > largest || around > largest - out.body_size)
            break;
        uint8_t *to = put(target + at, out.header, out.header_size);
        if (out.by)
            sf_stuff(&out, payload->data, payload->size, to);
        else
            sf_copy(to, out.body, out.body_size);
        if (out.trailer_size)
            put(to + out.body_size, out.trailer, out.trailer_size);
        at += around + out.body_size;
    }
    *used = at;
    return done;
}
