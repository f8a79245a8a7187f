"""One MFPO update in JAX: the peer of `bench update`.

The algorithm of arXiv 2604.14698 with the paper's settings, as one jit-compiled function over plain dictionaries of
arrays; Adam, target networks and temperature included. Sizes and device come from the command line; one request a line on
standard input asks for a number of updates, one line of JSON answers with their wall and CPU times in milliseconds.
check_update.py compares what is computed here with the reference's numbers.

usage: update_jax.py OBSERVATION_SIZE ACTION_SIZE CLIPPED_DOUBLE_Q(0|1) THREADS DEVICE
"""
import json
import sys
import time

import jax_device

if __name__ == "__main__":
    # Before jax is imported.
    DEVICE = jax_device.choose(sys.argv[5], int(sys.argv[4]))

import jax
import jax.numpy as jnp
import numpy as np

B, T, K1, K2, N, ATOMS = 256, 2, 16, 32, 2, 101
V_MIN, V_MAX, GAMMA, TAU, RATE = -1600.0, 1600.0, 0.99, 0.005, 3e-4
SUPPORT = jnp.linspace(V_MIN, V_MAX, ATOMS)
SPACING = (V_MAX - V_MIN) / (ATOMS - 1)
TARGET_ENTROPY_PER_DIM = -0.5


def dense(key, inputs, outputs):
    bound = np.sqrt(6.0 / (inputs + outputs))
    return {"w": jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound), "b": jnp.zeros(outputs)}


def make_embedder(key):
    a, b, c = jax.random.split(key, 3)
    return {"f": 0.2 * jax.random.normal(a, (64,)), "hidden": dense(b, 128, 64), "out": dense(c, 64, 64)}


def make_trunk(key, inputs, outputs):
    keys = jax.random.split(key, 4)
    sizes = [inputs, 256, 256, 256]
    layers = [
        {**dense(keys[i], sizes[i], sizes[i + 1]), "scale": jnp.ones(sizes[i + 1]), "shift": jnp.zeros(sizes[i + 1])}
        for i in range(3)
    ]
    return {"layers": layers, "head": dense(keys[3], 256, outputs)}


def make_flow(key, inputs, outputs):
    a, b, c = jax.random.split(key, 3)
    return {"t": make_embedder(a), "h": make_embedder(b), "trunk": make_trunk(c, inputs + 64, outputs)}


def linear(p, x):
    return x @ p["w"] + p["b"]


def gelu(x):
    return jax.nn.gelu(x, approximate=True)


def trunk(p, x):
    for layer in p["layers"]:
        x = linear(layer, x)
        mean, square = jnp.mean(x, -1), jnp.mean(x * x, -1)
        variance = jnp.maximum(square - mean * mean, 0.0)
        # In this order of operations XLA finds the layer normalisation and calls oneDNN's, which is faster.
        gain = jax.lax.rsqrt(variance[..., None] + 1e-6) * layer["scale"]
        x = gelu((x - mean[..., None]) * gain + layer["shift"])
    return linear(p["head"], x)


def embed(p, z):
    f = 2 * jnp.pi * z * p["f"]
    return linear(p["out"], gelu(linear(p["hidden"], jnp.concatenate([jnp.cos(f), jnp.sin(f)], -1))))


def flow(p, s, x, t, h):
    return trunk(p["trunk"], jnp.concatenate([x, s, embed(p["t"], t) + embed(p["h"], h)], -1))


def logits(p, s, a):
    return trunk(p, jnp.concatenate([s, a], -1))


def value(p, s, a):
    return jnp.sum(jax.nn.softmax(logits(p, s, a)) * SUPPORT, -1)


def join(a, b, clipped):
    return jnp.minimum(a, b) if clipped else 0.5 * (a + b)


def sample(actor, divergence, s, noise):
    x, h = noise, jnp.full((noise.shape[0], 1), 1.0 / T)
    log_p = jnp.sum(-0.5 * x * x - 0.5 * jnp.log(2 * jnp.pi), -1)
    for i in range(T, 0, -1):
        t = jnp.full((noise.shape[0], 1), i / T)
        log_p = log_p + flow(divergence, s, x, t, h)[:, 0] / T
        x = x - flow(actor, s, x, t, h) / T
    return jnp.clip(x, -1, 1), log_p


def project(p, y):
    b = (jnp.clip(y, V_MIN, V_MAX) - V_MIN) / SPACING
    low, high = jnp.clip(jnp.floor(b), 0, ATOMS - 1), jnp.clip(jnp.ceil(b), 0, ATOMS - 1)
    same = low == high
    lower, upper = jnp.where(same, p, p * (high - b)), jnp.where(same, 0.0, p * (b - low))
    rows = jnp.arange(p.shape[0])[:, None]
    m = jnp.zeros_like(p).at[rows, low.astype(int)].add(lower)
    return m.at[rows, high.astype(int)].add(upper)


def adam(p, moments, grads, n):
    first, second = moments
    first = jax.tree_util.tree_map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree_util.tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
    c1, c2 = 1 - 0.9**n, 1 - 0.999**n
    step = lambda p, m, v: p - RATE * (m / c1) / (jnp.sqrt(v / c2) + 1e-8)
    return jax.tree_util.tree_map(step, p, first, second), (first, second)


class Draws:
    """The random numbers of one update, by the names that they have in tests/golden."""

    NAMES = ["q_noise", "actor", "actor_init_noise", "actor_noise", "eps_clean", "logp", "logp_probe", "logp_noise", "spare"]

    def __init__(self, key):
        self.keys = jax.random.split(key, len(self.NAMES))

    def key(self, name):
        return self.keys[self.NAMES.index(name)]

    def normal(self, name, shape):
        return jax.random.normal(self.key(name), shape)

    def truncated_normal(self, name, low, high, shape):
        return jax.random.truncated_normal(self.key(name), low, high, shape)

    def times(self, name, rows):
        pair = jax.nn.sigmoid(-0.4 + self.normal(name, (2, rows, 1)))
        t, r = jnp.max(pair, 0), jnp.min(pair, 0)
        return t, jnp.where(jnp.arange(rows)[:, None] < int(0.75 * rows), t, r)


def update(state, batch, draws, clipped):
    B, A = batch["a"].shape
    params, moments, n = state["params"], state["moments"], state["n"] + 1
    alpha = jnp.exp(params["log_alpha"])
    s, a, s2 = batch["s"], batch["a"], batch["s2"]

    # Critics.
    a2, log_p2 = sample(params["actor"], params["divergence"], s2, draws.normal("q_noise", (B, A)))
    y = batch["r"][:, None] + GAMMA * batch["m"][:, None] * (SUPPORT - alpha * log_p2[:, None])
    m1, m2 = (project(jax.nn.softmax(logits(z, s2, a2)), y) for z in state["targets"])
    if clipped:
        first = jnp.sum(m1 * SUPPORT, -1) < jnp.sum(m2 * SUPPORT, -1)
        m = jnp.where(first[:, None], m1, m2)
    else:
        m = 0.5 * (m1 + m2)
    critics, critic_moments, losses = [], [], []
    for p, mo in zip(params["critics"], moments["critics"]):
        loss = lambda p: -jnp.mean(jnp.sum(m * jax.nn.log_softmax(logits(p, s, a)), -1))
        l, g = jax.value_and_grad(loss)(p)
        p, mo = adam(p, mo, g, n)
        critics.append(p), critic_moments.append(mo), losses.append(l)
    targets = jax.tree_util.tree_map(lambda t, p: (1 - TAU) * t + TAU * p, state["targets"], critics)

    # Actor.
    (t, r), wide = draws.times("actor", B), jnp.repeat(s, K1, 0)
    noise = draws.normal("actor_init_noise", (B * K1, A))
    proposals, log_p = sample(params["actor"], params["divergence"], wide, noise)
    entropy = -jnp.mean(log_p)
    proposals, log_p = proposals.reshape(B, K1, A), log_p.reshape(B, K1)
    first = proposals[:, 0]
    x = (1 - t) * first + t * draws.normal("actor_noise", (B, A))
    low, high = (x - (1 - t)) / t, (x + (1 - t)) / t
    eps = draws.truncated_normal("eps_clean", low[:, None], high[:, None], (B, K2, A))
    clean = (x[:, None] - t[:, None] * eps) / (1 - t[:, None])
    both, wide = jnp.concatenate([proposals, clean], 1).reshape(-1, A), jnp.repeat(s, K1 + K2, 0)
    q = join(*(value(p, wide, both) for p in critics), clipped).reshape(B, K1 + K2)
    square = jnp.sum((x[:, None] - (1 - t[:, None]) * proposals) ** 2, -1)
    w1 = jax.nn.softmax(q[:, :K1] / alpha - square / (2 * t * t) - log_p)
    w2 = jax.nn.softmax(q[:, K1:] / alpha)
    v1 = jnp.sum(w1[..., None] * (x[:, None] - proposals) / t[:, None], 1)
    v2 = jnp.sum(w2[..., None] * (x[:, None] - clean) / t[:, None], 1)
    e1, e2 = 1 / jnp.sum(w1 * w1, -1, keepdims=True), 1 / jnp.sum(w2 * w2, -1, keepdims=True)
    share = e1 / (e1 + e2 + 1e-10)
    v, one = share * v1 + (1 - share) * v2, jnp.ones_like(t)

    def actor_loss(p):
        u, du = jax.jvp(lambda x, t, h: flow(p, s, x, t, h), (x, t, t - r), (v, one, one))
        return jnp.mean((jax.lax.stop_gradient(v - (t - r) * du) - u) ** 2)

    l, g = jax.value_and_grad(actor_loss)(params["actor"])
    losses.append(l)
    actor, actor_moments = adam(params["actor"], moments["actor"], g, n)

    # Divergence.
    (t, r), probes = draws.times("logp", B), draws.normal("logp_probe", (B, N, A))
    x = (1 - t) * first + t * draws.normal("logp_noise", (B, A))
    velocity = lambda x: flow(actor, s, x, t, jnp.zeros_like(t))
    u, push = jax.linearize(velocity, x)
    div = jnp.mean(jnp.stack([jnp.sum(probes[:, i] * push(probes[:, i]), -1) for i in range(N)]), 0)[:, None]

    def divergence_loss(p):
        d, dd = jax.jvp(lambda x, t, h: flow(p, s, x, t, h), (x, t, t - r), (u, one, one))
        return jnp.mean((jax.lax.stop_gradient(div - (t - r) * dd) - d) ** 2)

    l, g = jax.value_and_grad(divergence_loss)(params["divergence"])
    losses.append(l)
    divergence, divergence_moments = adam(params["divergence"], moments["divergence"], g, n)

    # Temperature: the gradient with respect to log alpha is the loss itself.
    g = alpha * (entropy - TARGET_ENTROPY_PER_DIM * A)
    log_alpha, alpha_moments = adam(params["log_alpha"], moments["log_alpha"], g, n)
    state = {
        "params": {"actor": actor, "divergence": divergence, "critics": critics, "log_alpha": log_alpha},
        "moments": {
            "actor": actor_moments,
            "divergence": divergence_moments,
            "critics": critic_moments,
            "log_alpha": alpha_moments,
        },
        "targets": targets,
        "n": n,
    }
    return state, jnp.stack(losses)


def fresh(S, A):
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    critics = [make_trunk(keys[i], S + A, ATOMS) for i in (0, 1)]
    params = {
        "actor": make_flow(keys[2], A + S, A),
        "divergence": make_flow(keys[3], A + S, 1),
        "critics": critics,
        "log_alpha": jnp.log(0.01),
    }
    return start(params, jax.tree_util.tree_map(jnp.array, critics))


def start(params, targets):
    zeros = lambda p: jax.tree_util.tree_map(jnp.zeros_like, p)
    moments = {name: (zeros(p), zeros(p)) for name, p in params.items() if name != "critics"}
    moments["critics"] = [(zeros(p), zeros(p)) for p in params["critics"]]
    return {"params": params, "moments": moments, "targets": targets, "n": jnp.float32(0)}


def random_batch(S, A):
    rng = np.random.default_rng(0)
    batch = {
        "s": rng.uniform(-2, 2, (B, S)),
        "a": rng.uniform(-1, 1, (B, A)),
        "r": rng.uniform(0, 5, B),
        "m": np.ones(B),
        "s2": rng.uniform(-2, 2, (B, S)),
    }
    return {name: np.asarray(values, np.float32) for name, values in batch.items()}


def main():
    S, A, clipped, threads = (int(text) for text in sys.argv[1:5])
    drawn = lambda state, batch, key: update(state, batch, Draws(key), clipped)
    step, state, key = jax.jit(drawn, donate_argnums=0), fresh(S, A), jax.random.PRNGKey(1)
    batch = random_batch(S, A)
    for _ in range(5):
        key, draw = jax.random.split(key)
        state, losses = step(state, batch, draw)
    assert bool(jnp.all(jnp.isfinite(losses))), losses
    hello = {"jax": jax.__version__, "threads": threads, "platform": DEVICE.platform, "device": DEVICE.device_kind}
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        wall, cpu = [], []
        for _ in range(int(line)):
            key, draw = jax.random.split(key)
            before, cpu_before = time.perf_counter(), time.process_time()
            state, losses = step(state, batch, draw)
            jax.block_until_ready((losses, state["n"]))
            jax.block_until_ready(state)
            wall.append(1e3 * (time.perf_counter() - before))
            cpu.append(1e3 * (time.process_time() - cpu_before))
        print(json.dumps({"wall_ms": wall, "cpu_ms": cpu, "losses": [float(l) for l in losses]}), flush=True)


if __name__ == "__main__":
    main()
