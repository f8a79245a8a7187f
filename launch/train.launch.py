"""Starts the trainer, which publishes every better policy on the topic `policy/bundle`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description():
    """The arguments and the trainer."""
    arguments = [
        ("task", "swing_arm", "Task to learn; `mfpo_train tasks` lists them"),
        ("seed", "0", "Everything random follows from it"),
        ("nice", "10", "By how much the trainer lowers its priority, 0 to 19"),
        ("namespace", "", "Namespace of the topic policy/bundle, that of the control node"),
    ]
    trainer = Node(
        package="mfpo_node",
        executable="mfpo_train",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("train", "--topic", "--quiet"),
            *("--task", LaunchConfiguration("task")),
            *("--seed", LaunchConfiguration("seed")),
            *("--nice", LaunchConfiguration("nice")),
        ],
        output="screen",
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription([*declared, trainer])
