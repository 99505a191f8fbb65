"""The segment: a POSIX pax tar of Part-10 files, appended once, sealed, then never changed.

Layout. Every member is three runs of 512-byte blocks, and its body is a valid ``.dcm`` by byte range alone::

    pax header ('x')   records: path, size, SCHILY.xattr.user.sansfilm.<key>=<provenance>, ..., check
    ustar header ('0') name, size, time of receipt
    body               the Part-10 file, zeros up to the next block

A sealed segment ends with the member ``.sansfilm/<segment>.index`` (one line per member, written by the archive), the
member ``.sansfilm/<segment>.trailer`` and the two zero blocks of every tar: together the trailer and the zeros are the
last `trailer.TRAILER_BYTES` bytes, so one suffix read finds the index. GNU tar lists and extracts all of it silently.

| module     | what it holds |
|------------|---------------|
| `disk`     | the only way files are written here: create, append, sync, rename |
| `aligned`  | appends past the page cache, for what is synced at once |
| `checksum` | CRC32C of any buffer |
| `tar`      | one member: its header from name, size and provenance, and back |
| `trailer`  | the end of a sealed segment |
| `writer`   | append members, sync, seal |
| `reader`   | the index of a sealed segment, and a scan of any segment |
| `streamed` | a one-member segment whose size and digest are known only at its end (claim check) |
| `sweep`    | removing what a dead process left half written |
| `recover`  | what can still be delivered from a segment that was never sealed, and what is set aside |

Invariants
  * Three records are ours on every member: ``crc32c`` (of the body), ``segment`` (the segment's own name) and ``check``
    (CRC32C of all records before it and of the ustar header). A header that does not check was not written by us, or
    not wholly; a body that does not match its CRC32C is never delivered.
  * ``segment`` binds a member to its file: neither the stale blocks of a deleted segment that a file system hands out
    after a power cut, nor a tar file that somebody sent inside an instance, is taken for a member in recovery.
  * Names are never trusted as paths by this product; names that tar would refuse or rewrite are refused when written.
  * Nothing is durable before `sync`; nothing is findable before the folder's sync. After a failed sync the file is
    abandoned: the kernel has dropped the pages and a second sync would lie.

Limits. Bodies to 2^63 bytes (over 8 GiB through the pax ``size`` record); `tar.PAX_BYTES_MAX` of records a member. File
systems keep about 4 KiB of extended attributes a file: larger provenance is kept in the tar and read by us, while
``tar --xattrs`` reports what it could not restore.

Crash cases
  * killed or cut while appending: no trailer; `recover` delivers each member that verifies and reports the rest as
    torn (nothing valid after it) or corrupt (valid members follow).
  * killed while streaming: a ``.part`` file whose lock nobody holds; `sweep.sweep_parts` removes it at start-up.
  * killed between rename and the folder's sync: the segment is there or it is not; nobody was told yet.
"""
