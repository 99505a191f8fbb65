"""DIMSE as an acceptor: PS3.8 upper layer and the C-STORE and C-ECHO services of PS3.7, without a toolkit's reactor.

Association PDUs are decoded here rather than by pynetdicom, which ends an association over any item type it does not
know (PS3.8 9.3.1 wants it ignored) or an AE title it does not like, and logs what it was sent; the tests hold what we
encode against pynetdicom and DCMTK.
"""
