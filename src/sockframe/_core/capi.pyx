# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False
"""What other extensions may cimport, as capi.pxd tells. From Python there is nothing to see."""

from .codec cimport Decoder as CoreDecoder

from .. import errors


cdef CoreDecoder checked(object decoder):
    """Return what is a Decoder; C lets None be one."""
    if type(decoder) is not CoreDecoder:
        raise errors.not_decoder_error(decoder)
    return <CoreDecoder>decoder


cdef int feed_bytes(Decoder decoder, const void *data, Py_ssize_t size) except -1:
    if size < 0 or (size and data == NULL):
        raise errors.bad_bytes_error(size)
    return checked(decoder).feed_now(<const unsigned char *>data, size)


cdef Py_ssize_t take_payloads(Decoder decoder, Payload *payloads, Py_ssize_t most) except -1:
    if most < 1 or payloads == NULL:
        raise errors.no_room_error(most)
    return checked(decoder).place_payloads(payloads, most)
