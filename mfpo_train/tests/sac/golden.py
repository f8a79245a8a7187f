"""Two SAC updates in JAX, double precision, independent of the Rust code: writes golden.json beside this file.

python3 -m venv v && v/bin/pip install jax && v/bin/python golden.py
"""
import json, pathlib
import jax, jax.numpy as jnp, numpy as np

jax.config.update("jax_enable_x64", True)
S, A, B, H, GAMMA, TAU, LR, TARGET = 3, 2, 6, 8, 0.97, 0.05, 1e-2, -2.0
rng = np.random.default_rng(7)
f32 = lambda *shape, scale=1.0: (scale * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)


def network(inputs, outputs):
    sizes = [inputs, H, H, outputs]
    return {f"Dense_{i}/{kind}": f32(*shape, scale=0.5) for i in range(3)
            for kind, shape in (("kernel", sizes[i:i + 2]), ("bias", sizes[i + 1:i + 2]))}


def mlp(p, x):
    for i in range(3):
        x = x @ p[f"Dense_{i}/kernel"] + p[f"Dense_{i}/bias"]
        x = jax.nn.relu(x) if i < 2 else x
    return x


def sample(p, s, noise):
    mean, log_std = jnp.split(mlp(p, s), 2, axis=1)
    log_std = jnp.clip(log_std, -20.0, 2.0)
    u = mean + jnp.exp(log_std) * noise
    log_normal = jax.scipy.stats.norm.logpdf(u, mean, jnp.exp(log_std))
    return jnp.tanh(u), jnp.sum(log_normal - jnp.log1p(-jnp.tanh(u) ** 2), axis=1)


def q(p, s, a):
    return mlp(p, jnp.concatenate([s, a], axis=1))[:, 0]


def adam(p, g, m, n):
    m = jax.tree.map(lambda m, g: (0.9 * m[0] + 0.1 * g, 0.999 * m[1] + 0.001 * g * g), m, g,
                     is_leaf=lambda x: isinstance(x, tuple))
    step = lambda p, m: p - LR * (m[0] / (1 - 0.9 ** n)) / (jnp.sqrt(m[1] / (1 - 0.999 ** n)) + 1e-8)
    return {k: step(p[k], m[k]) for k in p}, m


nets = {"actor": network(S, 2 * A), "critic_1": network(S + A, 1), "critic_2": network(S + A, 1)}
initial = {n: {k: v.copy() for k, v in p.items()} for n, p in nets.items()}
target = {i: dict(nets[f"critic_{i}"]) for i in (1, 2)}
moments = {n: {k: (jnp.zeros_like(v), jnp.zeros_like(v)) for k, v in p.items()} for n, p in nets.items()}
log_alpha, alpha_moments = np.log(0.3), (0.0, 0.0)
updates = []
for n in (1, 2):
    d = dict(observations=f32(B, S), actions=np.clip(f32(B, A, scale=0.5), -1, 1), rewards=f32(B),
             masks=(np.arange(B) != n).astype(float), next_observations=f32(B, S),
             next_noise=f32(B, A), actor_noise=f32(B, A))
    alpha = np.exp(log_alpha)
    a, logp = sample(nets["actor"], d["next_observations"], d["next_noise"])
    bar = jnp.minimum(*(q(target[i], d["next_observations"], a) for i in (1, 2)))
    y = d["rewards"] + GAMMA * d["masks"] * (bar - alpha * logp)
    told, grads = {}, {}
    for i in (1, 2):
        loss = lambda p: 0.5 * jnp.mean((q(p, d["observations"], d["actions"]) - y) ** 2)
        told[f"critic_loss_{i}"], grads[f"critic_{i}"] = jax.value_and_grad(loss)(nets[f"critic_{i}"])
    for i in (1, 2):
        name = f"critic_{i}"
        nets[name], moments[name] = adam(nets[name], grads[name], moments[name], n)
        target[i] = {k: TAU * nets[name][k] + (1 - TAU) * target[i][k] for k in target[i]}

    def actor_loss(p):
        a, logp = sample(p, d["observations"], d["actor_noise"])
        low = jnp.minimum(*(q(nets[f"critic_{i}"], d["observations"], a) for i in (1, 2)))
        return jnp.mean(alpha * logp - low), -jnp.mean(logp)

    (told["actor_loss"], told["entropy"]), grads["actor"] = jax.value_and_grad(actor_loss, has_aux=True)(nets["actor"])
    nets["actor"], moments["actor"] = adam(nets["actor"], grads["actor"], moments["actor"], n)
    g = told["entropy"] - TARGET
    told["temperature_loss"] = log_alpha * g
    after, m = adam({"x": log_alpha}, {"x": g}, {"x": alpha_moments}, n)
    log_alpha, alpha_moments = after["x"], m["x"]
    told["temperature"] = np.exp(log_alpha)
    updates.append(dict(batch=d, metrics=told, gradients=grads, target=y))
final = dict(nets, target_critic_1=target[1], target_critic_2=target[2])
flat = lambda x: {k: flat(v) for k, v in x.items()} if isinstance(x, dict) else (
    [flat(v) for v in x] if isinstance(x, list) else np.asarray(x).ravel().tolist())
out = dict(made_by=f"golden.py, jax {jax.__version__}, double precision", sizes=[S, A, B, H],
           settings=flat(dict(discount=GAMMA, tau=TAU, learning_rate=LR, initial_temperature=0.3,
                         target_entropy_per_dim=TARGET / A)), initial=flat(initial), updates=flat(updates), final=flat(final))
pathlib.Path(__file__).with_name("golden.json").write_text(json.dumps(out))
