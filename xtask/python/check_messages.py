"""Sends one of each message of mfpo_msgs from one node to another and compares what arrives."""

import time

import rclpy
from mfpo_msgs.msg import EpisodeResult, PolicyAction, PolicyBundle, PolicyStatus
from rclpy.qos import DurabilityPolicy, QoSProfile

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MESSAGES = [
    PolicyBundle(run="run", version=7, robot="swing_arm", data=bytes(range(256))),
    PolicyStatus(state=PolicyStatus.ACTIVE, swaps=3, joint_names=["shoulder"], joint_ages=[0.25]),
    PolicyAction(sequence=9, action=[0.5, -1.0], command=[0.1, 0.2], fallback=True),
    EpisodeResult(index=1, seed=2, success=True, episode_return=12.5, duration=2.5),
]


def send(node, message):
    """Publishes `message` and waits until it comes back."""
    got = []
    topic = "check_" + type(message).__name__.lower()
    publisher = node.create_publisher(type(message), topic, LATCHED)
    node.create_subscription(type(message), topic, got.append, LATCHED)
    publisher.publish(message)
    end = time.monotonic() + 20.0
    while not got and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    assert got, f"{type(message).__name__} did not arrive within 20 s"
    assert got[0] == message, f"expected {message}, got {got[0]}"


rclpy.init()
checker = rclpy.create_node("check_messages")
for each in MESSAGES:
    send(checker, each)
print(f"mfpo_msgs: {len(MESSAGES)} messages sent and received by rclpy")
rclpy.shutdown()
