# For extensions written in Cython: `from sockframe cimport Decoder, Payload, feed_bytes, take_payloads`.

from sockframe._core.capi cimport Decoder, Payload, feed_bytes, take_payloads
