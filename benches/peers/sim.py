"""Steps Gymnasium's tasks: the peer of `bench sim`.

Reads {"task": name, "steps": n} a line, answers {"seconds": s} for n steps of random actions with resets at the ends.
"""
import json
import os
import sys
import time
import warnings

os.environ.setdefault("MUJOCO_GL", "disable")
warnings.filterwarnings("ignore")

import gymnasium
import numpy as np

environments = {}
print(json.dumps({"gymnasium": gymnasium.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    task = request["task"]
    if task not in environments:
        environments[task] = gymnasium.make(task, disable_env_checker=True)
        environments[task].reset(seed=0)
    env, steps = environments[task], request["steps"]
    space = env.action_space
    actions = np.random.default_rng(0).uniform(space.low, space.high, (steps, space.shape[0])).astype(np.float32)
    env.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
