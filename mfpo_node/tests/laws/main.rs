//! The laws of the control node, on its real parts with a clock and a seed of their own. The same over real DDS is
//! in the crate `mfpo_tests`.

mod activation;
mod bundles;
mod control_loop;
mod description;
mod goals;
mod guard;
mod inputs;
mod joint_states;
mod lifecycle;
mod parameters;
mod parts;
mod probe;
mod recording;
mod safety;
mod sim_time;
mod stages;
mod status;
mod support;
mod system_calls;
mod tick_ring;

#[global_allocator]
static COUNTING: support::CountingAllocator = support::CountingAllocator;
