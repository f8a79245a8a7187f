//! The whole system over real ROS 2 and real MuJoCo: programs as processes, and DDS between them.

mod bad_bundles;
mod bad_input;
mod connections;
mod control_thread;
mod dry_run;
mod faults;
mod goals;
mod gradient;
mod guard;
mod large_bundles;
mod lifecycle;
mod messages;
mod monitoring;
mod names;
mod operators;
mod parameters;
mod probe;
mod recordings;
mod robot_description;
mod standstill;
mod stopping;
mod swaps;
mod three_ways;
mod transports;
mod undisturbed;
