"""Reads a recording of the control node as anybody would, with the packages mcap and mcap-ros2-support, and prints it
as one JSON object. Numbers that JSON lacks are strings: "nan", "inf"."""

import hashlib
import json
import math
import sys

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory


def plain(value):
    """A decoded message as JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (str, int)):
        return value
    if hasattr(value, "__slots__") and not isinstance(value, (bytes, bytearray)):
        return {name: plain(getattr(value, name)) for name in value.__slots__ if not name.startswith("_")}
    return [plain(each) for each in value]


def main():
    """The whole file."""
    with open(sys.argv[1], "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        header, summary = reader.get_header(), reader.get_summary()
        topics = {}
        for schema, channel, message, decoded in reader.iter_decoded_messages():
            topic = topics.setdefault(channel.topic, {"schema": schema.name, "times": [], "messages": []})
            topic["times"].append(message.log_time)
            topic["messages"].append(plain(decoded))
        print(
            json.dumps(
                {
                    "profile": header.profile,
                    "library": header.library,
                    "channels": {channel.topic: channel.message_encoding for channel in summary.channels.values()},
                    "topics": topics,
                    "attachments": [
                        [each.name, each.media_type, hashlib.sha256(each.data).hexdigest()]
                        for each in reader.iter_attachments()
                    ],
                    "metadata": {each.name: each.metadata for each in reader.iter_metadata()},
                }
            )
        )


if __name__ == "__main__":
    main()
