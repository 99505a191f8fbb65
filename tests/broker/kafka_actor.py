"""A member of a group that a test kills: ``python -m tests.broker.kafka_actor BOOTSTRAP PREFIX``.

It says what it takes, a number a line, and commits the first ten messages only.
"""

from __future__ import annotations

import sys

from broker.kafka import KafkaConfiguration, KafkaConsumer
from schemas.message import Lane
from tests.broker.messages import number_of

COMMITTED = 10


def main() -> None:
    consumer = KafkaConsumer(KafkaConfiguration(bootstrap=sys.argv[1], prefix=sys.argv[2]), lane=Lane.ROUTINE)
    count = 0
    while True:
        for one in consumer.take(max_messages=1, max_bytes=10**6, wait_s=1.0):
            count += 1
            if count <= COMMITTED:
                consumer.commit([one.position])
                print("committed", number_of(one.message), flush=True)
            else:
                print("taken", number_of(one.message), flush=True)


if __name__ == "__main__":
    main()
