"""The raw reader on a segment made here by hand: it finds the records, and any damaged byte."""

import struct
import unittest
import zlib
from types import SimpleNamespace

import raw_reader
from raw_reader import Wrong, crc32c

CLUSTER, TOPIC = bytes(range(16)), bytes(range(16, 32))
SEGMENT = {"file": "file", "file_epoch": 3, "nonce": 7, "epoch": 3, "base_offset": 40, "start_position": 512}
VALUES = [b"one", None, b"three" * 40]


def zigzag(value):
    value, out = value << 1 ^ value >> 63, bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def counted(value):
    return zigzag(-1) if value is None else zigzag(len(value)) + value


def record(delta, value):
    body = b"\0" + zigzag(5) + zigzag(delta) + counted(b"key") + counted(value)
    body += zigzag(1) + counted(b"header") + counted(None)
    return zigzag(len(body)) + body


def batch(base_offset, values):
    records = b"".join(record(delta, value) for delta, value in enumerate(values))
    last = len(values) - 1
    covered = struct.pack(">hiqqqhii", 0, last, 1000, 1005, -1, -1, -1, len(values)) + records
    return struct.pack(">qiibI", base_offset, len(covered) + 9, 3, 2, crc32c(covered)) + covered


def header():
    fields = struct.pack(">I16s16sIIQ", 1, CLUSTER, TOPIC, 2, 3, 7)
    start = (raw_reader.MAGIC + fields).ljust(508, b"\0")
    return start + struct.pack(">I", zlib.crc32(start))


def segment(data):
    return SimpleNamespace(**SEGMENT, end_offset=40 + 2 * len(VALUES), end_position=len(data))


def read(data, end):
    partition = SimpleNamespace(topic=TOPIC, number=2, log_start=0, segments=[end])
    hdfs = SimpleNamespace(read=lambda path: data)
    return list(raw_reader.records(CLUSTER, partition, hdfs))


class RawReader(unittest.TestCase):
    def setUp(self):
        self.data = header() + batch(40, VALUES) + batch(43, VALUES)

    def test_checksum(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)

    def test_records_are_found(self):
        expected = list(enumerate(VALUES + VALUES, start=40))
        self.assertEqual(read(self.data, segment(self.data)), expected)

    def test_what_lies_behind_the_end_does_not_count(self):
        self.assertEqual(len(read(self.data + b"left behind", segment(self.data))), 6)

    def test_every_damaged_byte_is_found(self):
        for at in range(len(self.data)):
            damaged = bytearray(self.data)
            damaged[at] ^= 0x10
            with self.assertRaises(Wrong, msg=f"byte {at}"):
                read(bytes(damaged), segment(self.data))

    def test_a_file_that_is_too_short(self):
        for length in (0, 100, 512, 600, len(self.data) - 1):
            with self.assertRaises(Wrong, msg=f"{length} bytes"):
                read(self.data[:length], segment(self.data))

    def test_segments_that_leave_a_gap(self):
        def fields(*pairs):
            return b"".join(bytes([number << 3, value]) for number, value in pairs)

        def segment_record(base, end):
            inner = fields((1, end), (2, 100))
            return fields((1, 1), (4, base), (6, 2)) + bytes([7 << 3 | 2, len(inner)]) + inner

        key = f"{TOPIC.hex()}/{2:010}"
        for second, fits in ((5, True), (6, False)):
            etcd = raw_reader.Etcd.__new__(raw_reader.Etcd)
            etcd.entries = {
                f"head/{key}": fields((1, 1), (9, 9)),
                f"segment/{key}/{0:020}": segment_record(0, 5),
                f"segment/{key}/{second:020}": segment_record(second, 9),
            }
            if fits:
                self.assertEqual(len(raw_reader.Partition(TOPIC, 2, etcd).segments), 2)
            else:
                self.assertRaises(Wrong, raw_reader.Partition, TOPIC, 2, etcd)


if __name__ == "__main__":
    unittest.main()
