//! Every option of every Gymnasium task, changed.

use mfpo_sim::TaskOptions;
use serde_json::{Value, json};

/// Each task with numbers that are none of its defaults; a range that a random fall leaves is among them. Some of the flags
/// are at their defaults here: [`flipped`] has those the other way.
pub fn changed() -> Vec<(&'static str, TaskOptions)> {
    let all = json!({
        "Ant-v5": {
            "frame_skip": 3, "forward_reward_weight": 1.7, "ctrl_cost_weight": 0.3, "contact_cost_weight": 2e-3,
            "healthy_reward": 0.4, "main_body": "aux_1", "terminate_when_unhealthy": true, "healthy_z_range": [0.3, 0.6],
            "contact_force_range": [-0.5, 0.7], "reset_noise_scale": 0.05,
            "exclude_current_positions_from_observation": false, "include_cfrc_ext_in_observation": false,
        },
        "HalfCheetah-v5": {
            "frame_skip": 2, "forward_reward_weight": 0.6, "ctrl_cost_weight": 0.2, "reset_noise_scale": 0.3,
            "exclude_current_positions_from_observation": false,
        },
        "Hopper-v5": {
            "frame_skip": 2, "forward_reward_weight": 0.6, "ctrl_cost_weight": 0.01, "healthy_reward": 0.5,
            "terminate_when_unhealthy": true, "healthy_state_range": [-3.0, 4.0], "healthy_z_range": [0.5, 1.5],
            "healthy_angle_range": [-0.4, 0.3], "reset_noise_scale": 0.02,
            "exclude_current_positions_from_observation": false,
        },
        "Humanoid-v5": {
            "frame_skip": 3, "forward_reward_weight": 0.7, "ctrl_cost_weight": 0.3, "contact_cost_weight": 1e-5,
            "contact_cost_range": [0.001, 2.0], "healthy_reward": 2.0, "terminate_when_unhealthy": true,
            "healthy_z_range": [0.8, 1.5], "reset_noise_scale": 0.05,
            "exclude_current_positions_from_observation": false, "include_cinert_in_observation": false,
            "include_cvel_in_observation": true, "include_qfrc_actuator_in_observation": false,
            "include_cfrc_ext_in_observation": true,
        },
        "HumanoidStandup-v5": {
            "frame_skip": 3, "uph_cost_weight": 0.7, "ctrl_cost_weight": 0.3, "impact_cost_weight": 1e-5,
            "impact_cost_range": [0.001, 2.0], "reset_noise_scale": 0.05,
            "exclude_current_positions_from_observation": false, "include_cinert_in_observation": true,
            "include_cvel_in_observation": false, "include_qfrc_actuator_in_observation": true,
            "include_cfrc_ext_in_observation": false,
        },
        "InvertedDoublePendulum-v5": { "frame_skip": 3, "healthy_reward": 4.0, "reset_noise_scale": 0.2 },
        "InvertedPendulum-v5": { "frame_skip": 3, "reset_noise_scale": 0.05 },
        "Pusher-v5": {
            "frame_skip": 3, "reward_near_weight": 0.8, "reward_dist_weight": 1.5, "reward_control_weight": 0.3,
        },
        "Reacher-v5": { "frame_skip": 3, "reward_dist_weight": 1.5, "reward_control_weight": 0.3 },
        "Swimmer-v5": {
            "frame_skip": 3, "forward_reward_weight": 0.6, "ctrl_cost_weight": 0.01, "reset_noise_scale": 0.2,
            "exclude_current_positions_from_observation": false,
        },
        "Walker2d-v5": {
            "frame_skip": 2, "forward_reward_weight": 0.6, "ctrl_cost_weight": 0.01, "healthy_reward": 0.5,
            "terminate_when_unhealthy": false, "healthy_z_range": [0.6, 1.4], "healthy_angle_range": [-0.7, 0.8],
            "reset_noise_scale": 0.02, "exclude_current_positions_from_observation": false,
        },
    });
    let name = |known: &str| {
        mfpo_sim::registry::names()
            .into_iter()
            .find(|name| *name == known)
            .unwrap()
    };
    let tasks = all.as_object().unwrap().iter();
    let options = tasks.map(|(task, options)| (name(task), options.as_object().unwrap().clone()));
    options.collect()
}

/// [`changed`] with every flag the other way, of the tasks that have flags: of the two sets one has it on, the other off.
pub fn flipped() -> Vec<(&'static str, TaskOptions)> {
    let mut all = changed();
    all.retain(|(_, options)| options.values().any(Value::is_boolean));
    for value in all.iter_mut().flat_map(|(_, options)| options.values_mut()) {
        if let Value::Bool(flag) = value {
            *flag = !*flag;
        }
    }
    all
}
