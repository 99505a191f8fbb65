"""What a DICOM instance is: the bytes of one data set, read without a socket, a disk or a database.

Every function takes a buffer and a transfer syntax UID, keeps no state and may be called from any thread. Data sets are
passed without group 2; offsets count from their first byte. Nothing here logs, and no error quotes a value.

| module          | what it answers |
|-----------------|-----------------|
| `syntax`        | how does a transfer syntax write elements? |
| `elements`      | where does each element begin and end? (the one walker; everything else stands on it) |
| `head`          | which study does this belong to? from the first kilobytes, for the edge |
| `part10`        | where does the data set begin in this file? and the header in front of received bytes |
| `description`   | who, what, where are the pixels, and what is odd? one pass, for the worker |
| `character_set` | what do these bytes mean as text? |
| `inflate`       | what does a deflated data set hold? |
| `pixels`        | where does each frame lie? |
| `htj2k`         | one frame as HTJ2K lossless, and back |
| `transcode`     | the data set with compressed pixels and the recipe back, kept only if proven |
| `equality`      | do two data sets say the same? |
| `reencode`      | the data set as Explicit VR Little Endian |
| `codec`         | one compressed frame to native samples (runs in children) |
| `decode`        | the data set with native pixels, whatever its syntax |

Invariants
* Whatever the bytes are, `read_head` and `split` answer or raise `Rejected`, `describe` and `reencode` answer or raise
  `Unfileable`. The walker raises `elements.WalkError` and nothing else.
* A data set that can be filed is filed: oddities are warnings, and an instance with warnings is never transcoded.
* A `Transcoded` was restored from its own stored parts and hashed before it was given out.
* `equivalent` says yes only to equal content; when a side cannot be walked, only to equal bytes.

Limits
* 64 nested sequences (`elements.DEPTH_MAX`), 2 million elements in a walk (`elements.ELEMENTS_MAX`), 4 KiB of an
  attribute's value (`description.VALUE_BYTES_MAX`), 262,144 frames listed one by one (`pixels.FRAMES_MAX`).
* A deflated data set is inflated up to 100 times its size, at least 16 MiB and at most 512 MiB (`inflate`).
* Strangers' compressed streams are decoded in child processes under the decoder's time and memory limits. What crosses
  the pipe is refused beforehand if its native form would pass a quarter of that memory.

When something dies: there is nothing to recover here. A child killed by its stream is replaced, and the caller gets
`DecodeFailed` or `Unfileable`; a transcode that dies with its worker leaves the received bytes where they were, in the
log.
"""
