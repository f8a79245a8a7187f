"""Drives a task of Gymnasium: reads one JSON request a line, answers with one JSON line.

request: {"task": name, "seed": n, "steps": n}
answer:  {"qpos", "qvel", "actions", "observations" (the reset's first), "rewards", "terminated", "contacts"}

The start is Gymnasium's own random one of the seed. Actions are drawn here, so that both sides take the
same: uniform over the range, with a stretch at each end of it and a stretch beyond it.
"""
import json
import os
import sys
import warnings

os.environ.setdefault("MUJOCO_GL", "disable")
warnings.filterwarnings("ignore")

import gymnasium
import mujoco
import numpy as np


def actions_of(model, steps, seed):
    low, high = model.actuator_ctrlrange.T
    actions = np.random.default_rng(seed).uniform(low, high, (steps, model.nu))
    tenth = steps // 10
    actions[3 * tenth : 4 * tenth] = high
    actions[5 * tenth : 6 * tenth] = low
    actions[7 * tenth : 8 * tenth] *= 1.5
    return actions


def run(request):
    # Gymnasium checks the type of observations and warns; the task itself is what is compared.
    env = gymnasium.make(request["task"], disable_env_checker=True).unwrapped
    env.reset(seed=request["seed"])
    qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
    # The same integration state on both sides: nothing is left over from the random start but positions and velocities.
    mujoco.mj_resetData(env.model, env.data)
    env.set_state(qpos, qvel)
    actions = actions_of(env.model, request["steps"], request["seed"])
    observations, rewards, terminated, contacts = [env._get_obs()], [], [], 0
    for action in actions:
        observation, reward, end, _, _ = env.step(action)
        observations.append(observation)
        rewards.append(float(reward))
        terminated.append(bool(end))
        contacts += env.data.ncon > 0
    return {
        "qpos": qpos.tolist(),
        "qvel": qvel.tolist(),
        "actions": actions.tolist(),
        "observations": [o.tolist() for o in observations],
        "rewards": rewards,
        "terminated": terminated,
        "contacts": int(contacts),
    }


if __name__ == "__main__":
    print(json.dumps({"mujoco": mujoco.__version__, "gymnasium": gymnasium.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
