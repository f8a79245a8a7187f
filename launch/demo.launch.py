"""Starts robot, control node and trainer: the robot learns while it moves."""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

SHARE = get_package_share_directory("mfpo_node")


def include(name, *arguments):
    """The launch file `name` with those of our own arguments that it has."""
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(SHARE, "launch", name)),
        launch_arguments=[(argument, LaunchConfiguration(argument)) for argument in arguments],
    )


def generate_launch_description():
    """The arguments and the three launch files."""
    arguments = [
        ("task", "swing_arm", "Task of robot and trainer"),
        ("seed", "0", "Seed of the training and of the robot's starts"),
        ("namespace", "", "Namespace of all nodes and topics"),
        ("policy", "", "Path of the policy bundle to start with; empty waits for the trainer's first"),
        ("params_file", os.path.join(SHARE, "params", "demo.yaml"), "Parameters of the control node"),
    ]
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription(
        [
            *declared,
            include("sim.launch.py", "task", "seed", "namespace"),
            include("control.launch.py", "policy", "params_file", "namespace"),
            include("train.launch.py", "task", "seed", "namespace"),
        ]
    )
