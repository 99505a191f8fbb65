"""What crosses a process boundary: message attributes, instance records, decisions, bounded reasons.

Every name here is written to a disk or a wire and read back by another process, perhaps years later, so the rules are
strict: values are frozen, every enumeration is bounded (its values are metric labels too), and a codec sits beside the
type it encodes. Nothing here does input or output, and nothing here imports another package of this repository.

| module        | what it holds |
|---------------|---------------|
| `identifiers` | the words of the standard as types, and which UIDs are safe as keys |
| `message`     | the message of the log: CloudEvents attributes around a Part-10 file |
| `record`      | what the archive writes about an instance, in the segment's index and in the catalog alike |
| `decisions`   | what an operator decided: which version is current, what becomes of a quarantined instance |
| `reasons`     | why something was refused, kept as it came, warned about or quarantined |
"""
