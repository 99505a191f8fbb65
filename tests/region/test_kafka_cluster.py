"""Three brokers: what was acknowledged survives the loss of one, and the log goes on without it."""

from __future__ import annotations

from pathlib import Path

from broker.kafka import KafkaConfiguration, KafkaConsumer, KafkaPublisher
from broker.kafka.topics import LogTopics
from region.kafka import KafkaCluster
from schemas.message import Lane
from tests.broker.contract import numbers, publish, take_all
from tests.broker.messages import instance


def test_the_log_goes_on_without_one_of_three_brokers(tmp_path: Path) -> None:
    with KafkaCluster(tmp_path, heap_mib=160, quick=True) as cluster:
        log = KafkaConfiguration(bootstrap=cluster.bootstrap)
        LogTopics(log).apply(partitions=3, replication=3)
        assert LogTopics(log).check(partitions=3) == []
        publisher, consumer = KafkaPublisher(log), KafkaConsumer(log, lane=Lane.ROUTINE)
        try:
            publish(publisher, map(instance, range(20)))
            cluster.brokers[0].kill()
            publish(publisher, map(instance, range(20, 40)))
            taken = take_all(consumer, 40)
            consumer.commit([one.position for one in taken])
            assert sorted(numbers(taken)) == list(range(40))
        finally:
            publisher.close()
            consumer.close()
        for broker in cluster.brokers[1:]:
            broker.kill()  # nothing of it is needed any more
