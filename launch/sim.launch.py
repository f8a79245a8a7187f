"""Starts the simulated robot: joint states out, commands in, in real time."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description():
    """The arguments and the robot."""
    arguments = [
        ("task", "swing_arm", "Task whose robot is simulated"),
        ("seed", "0", "Seed of the list of starts"),
        ("rate", "250.0", "Joint states a second [Hz]"),
        ("namespace", "", "Namespace of the robot and of its topics, one for each robot"),
    ]
    robot = Node(
        package="mfpo_node",
        executable="robot",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("--task", LaunchConfiguration("task")),
            *("--seed", LaunchConfiguration("seed")),
            *("--rate", LaunchConfiguration("rate")),
        ],
        output="screen",
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription([*declared, robot])
