"""Another ROS 2 program of the machine: it joins, and listens to the topics of its arguments some seconds later.

Usage: bystander.py SECONDS TOPIC TYPE [TOPIC TYPE ...]; it says `listening` and goes on until it is killed.
"""

import importlib
import sys
import time

import rclpy

rclpy.init()
node = rclpy.create_node("bystander")
time.sleep(float(sys.argv[1]))
for topic, kind in zip(sys.argv[2::2], sys.argv[3::2]):
    package, name = kind.split("/")
    node.create_subscription(getattr(importlib.import_module(f"{package}.msg"), name), topic, lambda _: None, 10)
print("listening", flush=True)
rclpy.spin(node)
