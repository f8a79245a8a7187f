"""Drives a task of the DeepMind Control Suite; the protocol is that of gymnasium_reference.py.

The start is the suite's own random one of the seed, set once more into a physics that was just reset, so that both sides
begin from the same integration state.
"""
import json
import os
import sys
import warnings
from importlib.metadata import version

os.environ["MUJOCO_GL"] = "disable"
warnings.filterwarnings("ignore")

import mujoco
import numpy as np
from dm_control import suite

from gymnasium_reference import actions_of, state_of


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()]).tolist()


def model_values(name, physics):
    """What the task keeps in the model, by our names."""
    model = physics.named.model
    if name.startswith("reacher-") or name.startswith("swimmer-"):
        return {"target": model.geom_pos["target", :2].tolist()}
    if name.startswith("finger-turn"):
        return {"target": model.site_pos["target", ["x", "z"]].tolist()}
    if name == "fish-swim":
        return {"target": model.geom_pos["target"].tolist()}
    if name == "manipulator-bring_ball":
        position, rotation = model.body_pos["target_ball"], model.body_quat["target_ball"]
        return {"target": [*position[[0, 2]].tolist(), *rotation[[0, 2]].tolist()]}
    return {}


def starts(request):
    domain, task = request["task"].split("-")
    env = suite.load(domain, task, task_kwargs={"random": 0})
    starts = []
    for _ in range(request["starts"]):
        env.reset()
        physics = env.physics
        kept = [value for values in model_values(request["task"], physics).values() for value in values]
        starts.append([*physics.data.qpos.tolist(), *physics.data.qvel.tolist(), *kept])
    return {"starts": starts}


def run(request):
    domain, task = request["task"].split("-")
    env = suite.load(domain, task, task_kwargs={"random": request["seed"]})
    env.reset()
    physics = env.physics
    qpos, qvel, act = physics.data.qpos.copy(), physics.data.qvel.copy(), physics.data.act.copy()
    with physics.reset_context():
        physics.data.qpos[:] = qpos
        physics.data.qvel[:] = qvel
        physics.data.act[:] = act
        physics.data.qacc_warmstart[:] = 0
    kept = model_values(request["task"], physics)
    start, middle = state_of(physics.data, 0, kept), None
    actions = actions_of(physics.model, request["steps"], request["seed"])
    observations, rewards, contacts = [flat(env.task.get_observation(physics))], [], []
    terminated, truncated = [], []
    for number, action in enumerate(actions):
        if number == request["middle"]:
            middle = state_of(physics.data, number, kept)
        # A step after the end would be a reset: the task itself is what is compared.
        env._reset_next_step = False
        step = env.step(action)
        observations.append(flat(step.observation))
        rewards.append(float(step.reward))
        terminated.append(bool(step.last() and step.discount == 0))
        truncated.append(bool(step.last() and step.discount != 0))
        contacts.append(int(physics.data.ncon))
    return {
        "start": start,
        "middle": middle,
        "end": state_of(physics.data, request["steps"], kept),
        "actions": actions.tolist(),
        "observations": observations,
        "rewards": rewards,
        "terminated": terminated,
        "truncated": truncated,
        "contacts": contacts,
    }


if __name__ == "__main__":
    print(json.dumps({"mujoco": mujoco.__version__, "dm_control": version("dm_control")}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(starts(request) if "starts" in request else run(request)), flush=True)
