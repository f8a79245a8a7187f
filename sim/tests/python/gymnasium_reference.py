"""Drives a task of Gymnasium: reads one JSON request a line, answers with one JSON line.

request: {"task": name, "seed": n, "steps": n, "middle": n or null, "options": {name: value}}
answer:  {"start", "middle", "end", "actions", "observations" (the reset's first), "rewards", "terminated", "truncated",
         "contacts" (how many after each step)}; "start", "middle", the state before step number "middle", and "end", that after
         the last step, are as `mfpo_train rollout --state` reads them
request: {"task": name, "starts": n}
answer:  {"starts": [[qpos, qvel]...]}
request: {"task": name, "kept": {name: value}}
answer:  {"kept": the names of the options that would be at their defaults under these}

The start of a drive is Gymnasium's own random one of the seed. Actions are drawn here, so that both sides take the
same: uniform over the range, with a stretch at each end of it and a stretch beyond it.
"""
import inspect
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


def state_of(data, steps, model):
    """All that an episode goes on from: MuJoCo's integration state, without the controls, which every action sets."""
    return {
        "qpos": data.qpos.tolist(),
        "qvel": data.qvel.tolist(),
        "act": data.act.tolist(),
        "time": float(data.time),
        "qacc_warmstart": data.qacc_warmstart.tolist(),
        "steps": steps,
        "model": model,
    }


def make(request):
    # Gymnasium checks the type of observations and warns; the task itself is what is compared.
    return gymnasium.make(request["task"], disable_env_checker=True, **request.get("options", {}))


def starts(request):
    env = make(request)
    starts = []
    for seed in range(request["starts"]):
        env.reset(seed=seed)
        starts.append([*env.unwrapped.data.qpos.tolist(), *env.unwrapped.data.qvel.tolist()])
    return {"starts": starts}


def kept(request):
    parameters = inspect.signature(type(make(request).unwrapped).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    # Which file, and from where it is looked at: no rules of the task.
    for name in ["xml_file", "default_camera_config"]:
        del defaults[name]
    # As JSON has them.
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    under = {**defaults, **request["kept"]}
    return {"kept": [name for name, default in defaults.items() if under[name] == default]}


def run(request):
    # What is stepped ends after the task's time, as the registered task does.
    limited = make(request)
    limited.reset(seed=request["seed"])
    env = limited.unwrapped
    qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
    # The same integration state on both sides: nothing is left over from the random start but positions and velocities.
    mujoco.mj_resetData(env.model, env.data)
    env.set_state(qpos, qvel)
    start, middle = state_of(env.data, 0, {}), None
    actions = actions_of(env.model, request["steps"], request["seed"])
    observations, rewards, terminated, truncated, contacts = [env._get_obs()], [], [], [], []
    for number, action in enumerate(actions):
        if number == request["middle"]:
            middle = state_of(env.data, number, {})
        observation, reward, end, cut, _ = limited.step(action)
        observations.append(observation)
        rewards.append(float(reward))
        terminated.append(bool(end))
        truncated.append(bool(cut))
        contacts.append(int(env.data.ncon))
    return {
        "start": start,
        "middle": middle,
        "end": state_of(env.data, request["steps"], {}),
        "actions": actions.tolist(),
        "observations": [o.tolist() for o in observations],
        "rewards": rewards,
        "terminated": terminated,
        "truncated": truncated,
        "contacts": contacts,
    }


if __name__ == "__main__":
    print(json.dumps({"mujoco": mujoco.__version__, "gymnasium": gymnasium.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = starts if "starts" in request else kept if "kept" in request else run
        print(json.dumps(answer(request)), flush=True)
