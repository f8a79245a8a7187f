"""Starts the control node, by default with the trained policy of the simulated robot `swing_arm`."""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription, Substitution
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = get_package_share_directory("mfpo_node")
PARAMETERS = os.path.join(SHARE, "params", "control.yaml")
LEVELS = ["debug", "info", "warn", "error", "fatal"]


def installed_policy():
    """Path of the policy that is installed with the package, empty where it was built without one."""
    path = os.path.join(SHARE, "policies", "swing_arm.safetensors")
    return path if os.path.isfile(path) else ""


class DefaultPolicy(Substitution):
    """The installed policy with the installed parameters; a parameter file of one's own says itself which policy it is for."""

    def describe(self):
        """What `ros2 launch --show-args` prints."""
        return "the installed policy with the installed params_file, else empty"

    def perform(self, context):
        """Path of the policy, or nothing."""
        is_installed = LaunchConfiguration("params_file").perform(context) == PARAMETERS
        return installed_policy() if is_installed else ""


def control(context):
    """The node; an argument that is left empty is left to the parameter file."""
    parameters = [LaunchConfiguration("params_file")]
    for name, kind in [("policy", str), ("device", str), ("use_sim_time", bool)]:
        if LaunchConfiguration(name).perform(context):
            parameters.append({name: ParameterValue(LaunchConfiguration(name), value_type=kind)})
    return [
        Node(
            package="mfpo_node",
            executable="control",
            namespace=LaunchConfiguration("namespace"),
            parameters=parameters,
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description():
    """The arguments and the node."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PARAMETERS,
                description="Path of the YAML file with the node's parameters under ros__parameters",
            ),
            DeclareLaunchArgument(
                "policy",
                default_value=DefaultPolicy(),
                description="Path of the policy bundle to start with; empty: as the parameter file says, "
                "and without one there the node waits for the topic policy/bundle",
            ),
            DeclareLaunchArgument(
                "namespace",
                default_value="",
                description="Namespace of the node and of its topics, one for each robot",
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                description="Where the policy runs: cpu, cuda or cuda:N; empty: as the parameter file says",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=["", "true", "false"],
                description="Take the time from the topic /clock of a simulator; empty: as the parameter file says",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=LEVELS,
                description="Least severe messages that are shown; the environment variable RUST_LOG goes first",
            ),
            OpaqueFunction(function=control),
        ]
    )
