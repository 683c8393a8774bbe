#!/usr/bin/env python3
"""Reads a topic's records from nothing but etcd and HDFS, and prints each as a JSON line: partition,
offset, and the value's bytes in hex.

It is the second opinion of the tests: it was written from docs/formats/ and shares no code with the
project. It knows protobuf's wire format, the segment file and Kafka's record batch, checks every
checksum and every number it meets against metadata, and stops at the first thing that is not as
documented. It needs every segment sealed, batches uncompressed, and nobody writing.
"""

import argparse
import base64
import json
import struct
import sys
import urllib.request
import zlib

MAGIC = b"bmq-seg\n"
HEADER_BYTES = 512
BATCH_HEADER_BYTES = 61
# The states in which a segment has a fixed end.
SEALED, CLOSED = 2, 3


class Wrong(Exception):
    """Something is not as documented; the message says what and where."""


def require(holds, *what):
    if not holds:
        raise Wrong(" ".join(map(str, what)))


# HTTP, never through a proxy that the environment may name.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http(url, body=None):
    request = urllib.request.Request(url, data=body)
    with OPENER.open(request, timeout=60) as answer:
        return answer.read()


# Protobuf's wire format.


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        require(shift < 70, "a varint of more than ten bytes")


def message(data):
    """Field number to the list of its values: numbers for varints, bytes for what has a length."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
        elif wire == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
            require(len(value) == length, "a field that is cut off")
        else:
            raise Wrong(f"wire type {wire}, which no record has")
        fields.setdefault(number, []).append(value)
    return fields


def number(fields, which):
    return fields.get(which, [0])[-1]


def submessage(fields, which):
    return message(fields[which][-1]) if which in fields else None


def stored(data, name):
    """A stored record: its first field is the schema, which is 1."""
    fields = message(data)
    require(number(fields, 1) == 1, name, "has schema", number(fields, 1))
    return fields


# Metadata.


class Etcd:
    """All keys below a prefix, as they were at one revision."""

    def __init__(self, endpoint, prefix):
        self.entries = {}
        start = prefix.encode()
        end, key, revision = start[:-1] + bytes([start[-1] + 1]), start, 0
        while True:
            question = {"key": key, "range_end": end}
            question = {name: base64.b64encode(value).decode() for name, value in question.items()}
            question |= {"limit": "500", "revision": str(revision)}
            answer = json.loads(http(f"http://{endpoint}/v3/kv/range", json.dumps(question).encode()))
            revision = answer["header"]["revision"]
            found = answer.get("kvs", [])
            for entry in found:
                key = base64.b64decode(entry["key"])
                self.entries[key[len(start) :].decode()] = base64.b64decode(entry.get("value", ""))
            if not answer.get("more"):
                return
            key += b"\0"

    def below(self, prefix):
        return [(key, value) for key, value in sorted(self.entries.items()) if key.startswith(prefix)]


class Segment:
    def __init__(self, key, data):
        fields = stored(data, key)
        file, end = submessage(fields, 2) or {}, submessage(fields, 7) or {}
        self.key = key
        self.file = f"{number(file, 1):010}-{number(file, 2):016x}"
        self.file_epoch, self.nonce = number(file, 1), number(file, 2)
        self.epoch = number(fields, 3)
        self.base_offset = number(fields, 4)
        self.start_position = number(fields, 5)
        self.state = number(fields, 6)
        self.end_offset, self.end_position = number(end, 1), number(end, 2)


class Partition:
    def __init__(self, topic, partition, etcd):
        self.topic, self.number = topic, partition
        key = f"head/{topic.hex()}/{partition:010}"
        # Without a claim there is no head, and nothing was ever written.
        head = stored(etcd.entries[key], key) if key in etcd.entries else {}
        self.log_start, self.sealed_end = number(head, 8), number(head, 9)
        self.segments = [Segment(*entry) for entry in etcd.below(f"segment/{topic.hex()}/{partition:010}/")]
        for segment in self.segments:
            require(segment.state in (SEALED, CLOSED), segment.key, "has no fixed end, its state is", segment.state)
        self.check_chain()

    def check_chain(self):
        """Segments follow one another without a gap, up to the head's sealed end."""
        expected = self.segments[0].base_offset if self.segments else self.sealed_end
        require(expected <= self.log_start, "partition", self.number, "lacks offsets from its log start")
        for segment in self.segments:
            require(segment.base_offset == expected, segment.key, "does not begin at", expected)
            require(segment.end_offset > segment.base_offset, segment.key, "is empty")
            expected = segment.end_offset
        require(expected == self.sealed_end, "partition", self.number, "ends at", expected, "not", self.sealed_end)


# Segment files.


def crc32c_table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


CRC32C = tuple(crc32c_table())


def crc32c(data):
    table, crc = CRC32C, 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def check_header(data, where, cluster, partition, segment):
    require(len(data) >= HEADER_BYTES, where, "has no header")
    require(data[:8] == MAGIC, where, "begins with", data[:8])
    checksum = struct.unpack_from(">I", data, 508)[0]
    require(checksum == zlib.crc32(data[:508]), where, "has a header with a wrong checksum")
    version, found_cluster, topic, number, epoch, nonce = struct.unpack_from(">I16s16sIIQ", data, 8)
    found = (version, found_cluster, topic, number, epoch, nonce)
    expected = (1, cluster, partition.topic, partition.number, segment.file_epoch, segment.nonce)
    require(found == expected, where, "has the header", found, "instead of", expected)
    require(not any(data[60:508]), where, "has bytes that should be zeros in its header")


def batches(data, where, segment):
    """The record batches of a segment, as (base offset, last offset delta, records' bytes, count)."""
    at, expected = segment.start_position, segment.base_offset
    while at < segment.end_position:
        here = f"{where} at {at}"
        require(at + BATCH_HEADER_BYTES <= segment.end_position, here, ": a batch's header is cut off")
        base_offset, length, epoch, magic, checksum = struct.unpack_from(">qiibI", data, at)
        end = at + 12 + length
        require(length >= BATCH_HEADER_BYTES - 12 and end <= segment.end_position, here, ": a length of", length)
        require(magic == 2, here, ": magic", magic)
        require(checksum == crc32c(data[at + 21 : end]), here, ": a wrong checksum")
        require(base_offset == expected, here, ": base offset", base_offset, "instead of", expected)
        require(epoch == segment.epoch, here, ": epoch", epoch, "instead of", segment.epoch)
        attributes, last_delta = struct.unpack_from(">hi", data, at + 21)
        count = struct.unpack_from(">i", data, at + 57)[0]
        require(attributes & 0x07 == 0, here, ": it is compressed")
        require(count == last_delta + 1 > 0, here, ":", count, "records up to offset delta", last_delta)
        yield base_offset, data[at + BATCH_HEADER_BYTES : end], count, here
        at, expected = end, base_offset + count
    require(expected == segment.end_offset, where, "ends at offset", expected, "instead of", segment.end_offset)


def zigzag(data, at):
    value, at = varint(data, at)
    return value >> 1 ^ -(value & 1), at


def counted(data, at, here):
    """Bytes after their length; a length of -1 is null."""
    length, at = zigzag(data, at)
    if length < 0:
        return None, at
    require(at + length <= len(data), here, ": a field is cut off")
    return data[at : at + length], at + length


def values(data, count, here):
    """The values of the records of an uncompressed batch."""
    at = 0
    for expected in range(count):
        length, at = zigzag(data, at)
        end = at + length
        require(length > 0 and end <= len(data), here, ": record", expected, "has a length of", length)
        _timestamp, at = zigzag(data, at + 1)
        delta, at = zigzag(data, at)
        require(delta == expected, here, ": offset delta", delta, "instead of", expected)
        _key, at = counted(data, at, here)
        value, at = counted(data, at, here)
        headers, at = zigzag(data, at)
        for _ in range(2 * headers):
            _field, at = counted(data, at, here)
        require(at == end, here, ": record", expected, "does not end where its length says")
        yield value
    require(at == len(data), here, ": bytes behind the last record")


class Hdfs:
    def __init__(self, namenode, root):
        self.base = f"http://{namenode}/webhdfs/v1{root.rstrip('/')}"

    def read(self, path):
        return http(f"{self.base}/{path}?op=OPEN")


def records(cluster, partition, hdfs):
    """Every record of a partition at or above its log start, as (offset, value)."""
    for segment in partition.segments:
        path = f"{cluster.hex()}/{partition.topic.hex()}/{partition.number}/{segment.file}.log"
        data = hdfs.read(path)
        require(len(data) >= segment.end_position, path, "has", len(data), "of", segment.end_position, "bytes")
        check_header(data, path, cluster, partition, segment)
        for base_offset, body, count, here in batches(data, path, segment):
            for delta, value in enumerate(values(body, count, here)):
                if base_offset + delta >= partition.log_start:
                    yield base_offset + delta, value


def run(arguments):
    etcd = Etcd(arguments.etcd, arguments.prefix)
    cluster = stored(etcd.entries["cluster"], "cluster")[2][-1]
    topic_key = f"topic/{arguments.topic}"
    require(topic_key in etcd.entries, "there is no topic", arguments.topic)
    topic = stored(etcd.entries[topic_key], topic_key)
    hdfs = Hdfs(arguments.namenode, arguments.root)
    for index in range(number(topic, 4)):
        partition = Partition(topic[2][-1], index, etcd)
        for offset, value in records(cluster, partition, hdfs):
            text = None if value is None else value.hex()
            sys.stdout.write(f'{{"partition":{index},"offset":{offset},"value":{json.dumps(text)}}}\n')


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", required=True, metavar="HOST:PORT")
    parser.add_argument("--prefix", default="/bmq/", help="before every key (default: /bmq/)")
    parser.add_argument("--namenode", required=True, metavar="HOST:PORT", help="its HTTP address")
    parser.add_argument("--root", required=True, help="the store's folder on HDFS, such as /bmq")
    parser.add_argument("topic")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        run(parse())
    except Wrong as wrong:
        sys.exit(f"raw_reader: {wrong}")
