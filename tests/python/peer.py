"""A ROS 2 program made of rclpy that does what lines of JSON on standard input say.

Each line holds one order and is answered by one line `{"answer": ...}` or `{"error": ...}`. What arrives on a topic
is told as `{"topic": ..., "at": ..., "message": ...}`. Numbers that JSON lacks are strings: "nan", "inf". Times are
seconds of the monotonic clock, which all programs of a machine share.
"""

import array
import importlib
import json
import math
import re
import sys
import threading
import time

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

PATIENCE = 30.0
QOS = {
    "sensor": qos_profile_sensor_data,
    "reliable": QoSProfile(depth=100),
    "latched": QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    "best_effort": QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
}
WRITING = threading.Lock()


def tell(**line):
    """Writes one line."""
    with WRITING:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def interface(kind, group="msg"):
    """The class of `package/Name`."""
    package, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.{group}"), name)


def plain(value):
    """A message as JSON."""
    if hasattr(value, "get_fields_and_field_types"):
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, bytes):
        return value[0]
    return [plain(each) for each in value]


class Simulated:
    """Two joints that do what `commands` says, 100 times a second, and whose states may be wrong.

    `names` are those that the states give to the true joints `elbow` and `wrist`; `reads` is what each is multiplied
    with there, `obeys` the same of its commands (in the order wrist, elbow).
    """

    PERIOD = 0.01

    def __init__(self, node, order):
        self.interface, self.names = order["interface"], order["names"]
        self.reads, self.obeys = order["reads"], order["obeys"]
        self.positions, self.velocities = list(order["start"]), [0.0, 0.0]
        self.goals, self.pushes = list(order["start"]), [0.0, 0.0]
        self.commands, self.heard = [0.0, 0.0], float("-inf")
        self.node = node
        kind = interface("sensor_msgs/JointState")
        self.message = kind(name=self.names)
        self.publisher = node.create_publisher(kind, "joint_states", QOS["sensor"])
        node.create_subscription(interface("std_msgs/Float64MultiArray"), "commands", self.obey, QOS["reliable"])
        node.create_timer(self.PERIOD, self.step)

    def obey(self, message):
        """Takes a command over."""
        self.commands = [told * obeys for told, obeys in zip(reversed(message.data), self.obeys)]
        self.heard = time.monotonic()
        if self.interface == "position":
            self.goals = list(self.commands)

    def push(self, order):
        """Somebody moves a joint by hand, over half a second."""
        self.pushes[order["joint"]] = order["by"]
        if self.interface != "position":
            raise ValueError("only joints that hold their position can be moved by hand here")

    def step(self):
        """One period."""
        for joint in range(2):
            before, told = self.positions[joint], self.commands[joint]
            if time.monotonic() - self.heard > 0.2:
                told = 0.0
            if self.interface == "position":
                bit = math.copysign(min(abs(self.pushes[joint]), 0.01), self.pushes[joint])
                self.pushes[joint] -= bit
                self.goals[joint] += bit
                self.positions[joint] += 0.2 * (self.goals[joint] - before)
            elif self.interface == "velocity":
                self.positions[joint] += self.PERIOD * told
            else:
                self.velocities[joint] += self.PERIOD * (20.0 * told - 0.5 * self.velocities[joint])
                self.positions[joint] += self.PERIOD * self.velocities[joint]
            self.velocities[joint] = (self.positions[joint] - before) / self.PERIOD
        self.message.header.stamp = self.node.get_clock().now().to_msg()
        self.message.position = [reads * value for reads, value in zip(self.reads, self.positions)]
        self.message.velocity = [reads * value for reads, value in zip(self.reads, self.velocities)]
        self.publisher.publish(self.message)


class Robot:
    """The node and what it is busy with."""

    def __init__(self, namespace, executor):
        self.executor = executor
        self.references = []
        self.node = rclpy.create_node("peer", namespace=namespace)
        self.publishers = {}
        self.timers = {}
        self.sent = {}
        self.apart = {}
        self.heard = []
        self.asked = None

    def fill(self, message, values):
        """Writes JSON into a message."""
        kinds = message.get_fields_and_field_types()
        for name, value in values.items():
            setattr(message, name, self.value(kinds[name], getattr(message, name), value))
        return message

    def value(self, kind, default, value):
        """The value of a field."""
        if value == "now":
            return self.node.get_clock().now().to_msg()
        if isinstance(value, dict) and "now" in value:
            return (self.node.get_clock().now() + Duration(seconds=value["now"])).to_msg()
        if isinstance(value, dict) and "file" in value:
            with open(value["file"], "rb") as file:
                return array.array("B", file.read())
        if isinstance(value, dict):
            return self.fill(default, value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner = re.fullmatch(r"sequence<(.+?)(, \d+)?>", kind).group(1)
            return [self.fill(interface(inner)(), each) for each in value]
        if "double" in kind or "float" in kind:
            return [float(each) for each in value] if isinstance(value, list) else float(value)
        return value

    def publisher(self, order):
        """The publisher of an order's topic, made once; another one for each name that it goes by."""
        key = (order["topic"], order["type"], order.get("as"))
        if key not in self.publishers:
            kind = interface(order["type"])
            self.publishers[key] = self.node.create_publisher(kind, order["topic"], QOS[order["qos"]])
        return self.publishers[key]

    def listen(self, order):
        """Tells every message of a topic."""
        topic = order["topic"]
        self.heard.append(topic)
        self.node.create_subscription(
            interface(order["type"]),
            topic,
            lambda message: tell(topic=topic, at=time.monotonic(), message=plain(message)),
            QOS[order["qos"]],
        )

    def publish(self, order):
        """Sends one message, or several at once, when somebody else listens; tells when."""
        made = len(self.publishers)
        publisher = self.publisher(order)
        is_new = len(self.publishers) > made
        end = time.monotonic() + PATIENCE
        while publisher.get_subscription_count() <= self.heard.count(order["topic"]):
            if time.monotonic() > end:
                raise TimeoutError(f"nobody listens to {order['topic']}")
            time.sleep(0.01)
        if is_new and order["qos"] in ("sensor", "best_effort"):
            # The other side hears of this publisher a moment after this one of it; best effort sends nothing again.
            time.sleep(0.2)
        message = self.fill(interface(order["type"])(), order["message"])
        at = time.monotonic()
        for _ in range(order.get("times", 1)):
            publisher.publish(message)
        return at

    def repeat(self, order):
        """Sends a message again and again, in place of what was repeated under that name; a rate of 0 ends it.

        Tells when the last one of before was sent.
        """
        name = order["name"]
        running = self.timers.pop(name, None)
        if running:
            self.node.destroy_timer(running)
        last = self.sent.get(name)
        if order["hz"] > 0:
            publisher, kind = self.publisher(order), interface(order["type"])
            self.apart[name] = 0.0
            before = None

            def send():
                nonlocal before
                self.sent[name] = now = time.monotonic()
                self.apart[name] = max(self.apart[name], now - (now if before is None else before))
                publisher.publish(self.fill(kind(), order["message"]))
                before = now

            self.timers[name] = self.node.create_timer(1.0 / order["hz"], send)
        return last

    def longest_gap(self, order):
        """The longest time between two messages of those that are repeated under a name, s."""
        return self.apart.get(order["name"])

    def withdraw(self, order):
        """Ends what was repeated under a name, and its publishers with it; tells when the last one was sent."""
        self.node.destroy_timer(self.timers.pop(order["name"]))
        time.sleep(0.05)  # It may be sending just now.
        for key in [key for key in self.publishers if key[2] == order["name"]]:
            self.node.destroy_publisher(self.publishers.pop(key))
        return self.sent.get(order["name"])

    def call(self, order):
        """Calls a service and returns its answer."""
        kind = interface(order["type"], "srv")
        client = self.node.create_client(kind, order["service"])
        if not client.wait_for_service(PATIENCE):
            raise TimeoutError(f"no service {order['service']}")
        done = threading.Event()
        self.asked = time.monotonic()
        future = client.call_async(self.fill(kind.Request(), order["request"]))
        future.add_done_callback(lambda _: done.set())
        if not done.wait(PATIENCE):
            raise TimeoutError(f"service {order['service']} does not answer")
        return plain(future.result())

    def called(self, _order):
        """When the last service was called, once it had been found."""
        return self.asked

    def begin(self, order):
        """Calls a service whose answer is asked for later."""
        kind = interface(order["type"], "srv")
        client = self.node.create_client(kind, order["service"])
        if not client.wait_for_service(PATIENCE):
            raise TimeoutError(f"no service {order['service']}")
        self.begun = client.call_async(self.fill(kind.Request(), order["request"]))

    def end(self, _order):
        """The answer of `begin`, once it is there."""
        return plain(self.begun.result()) if self.begun.done() else None

    def simulate(self, order):
        """Becomes a robot."""
        self.simulated = Simulated(self.node, order)

    def push(self, order):
        """Somebody moves a joint of that robot by hand."""
        self.simulated.push(order)

    def lifecycle_node(self, order):
        """Starts a managed node of rcl itself, to compare with."""
        node = LifecycleNode(order["name"])
        self.references.append(node)
        self.executor.add_node(node)

    def graph(self, _order):
        """Names of nodes, and types of topics by name."""
        nodes = [f"{namespace.rstrip('/')}/{name}" for name, namespace in self.node.get_node_names_and_namespaces()]
        return {"nodes": nodes, "topics": dict(self.node.get_topic_names_and_types())}

    def endpoints(self, order):
        """Node, reliability and durability of the publishers and of the subscriptions of a topic."""
        told = {}
        for side in ["publishers", "subscriptions"]:
            infos = getattr(self.node, f"get_{side}_info_by_topic")(order["topic"])
            told[side] = [
                [info.node_name, info.qos_profile.reliability.name, info.qos_profile.durability.name]
                for info in infos
                if info.node_name != "peer"
            ]
        return told

    def fields(self, order):
        """Names and types of a message's fields, and its constants."""
        kind = interface(order["type"])
        constants = {name: plain(getattr(kind, name)) for name in order["constants"]}
        return {"fields": kind.get_fields_and_field_types(), "constants": constants}


def main():
    """Orders in, answers out, until standard input ends."""
    rclpy.init(args=[])
    executor = SingleThreadedExecutor()
    robot = Robot(sys.argv[1] or "/", executor)
    executor.add_node(robot.node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            tell(answer=getattr(robot, order.pop("do"))(order))
        except Exception as error:  # whatever it is, the test has to see it
            tell(error=f"{type(error).__name__}: {error}")
    rclpy.try_shutdown()
    spinning.join(timeout=1.0)


if __name__ == "__main__":
    main()
