"""Does update_jax.py compute the reference's update? `bench update --peers` asks before it times anything.

Parameters, mini-batches and random numbers of tests/golden go in; losses, gradients, parameters, targets and temperature that
come out are compared with the reference's, with and without clipped double Q and over four updates in a row. The tolerances
are three times those that our own update is tested with (mfpo_train/tests/golden/files.rs): XLA calls oneDNN's layer
normalisation, and what that rounds depends on the processor. Of the random numbers that update_jax.py draws
itself only the rows with r = t are compared. Prints the largest deviation; ends with 1 where something deviates by more.

usage: check_update.py FOLDER_OF_TESTS_GOLDEN DEVICE
"""
import functools
import json
import pathlib
import struct
import sys

import jax_device

DEVICE = jax_device.choose(sys.argv[2], 1)

import jax
import jax.numpy as jnp
import numpy as np
import update_jax

# Error allowed, in units of the reference's own float32 error, which is never taken as less than float32's rounding.
FACTOR, EPSILON = 30.0, 1.2e-7
LOSSES = ["critic_loss_1", "critic_loss_2", "actor_loss", "logp_loss"]


def read(path):
    """The arrays of a safetensors file; all of the golden ones are float32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    assert all(entry["dtype"] == "F32" for entry in header.values()), path
    cut = lambda entry: body[slice(*entry["data_offsets"])]
    return {name: np.frombuffer(cut(e), np.float32).reshape(e["shape"]) for name, e in header.items()}


def under(arrays, prefix):
    return {name[len(prefix) :]: values for name, values in arrays.items() if name.startswith(prefix)}


def linear(arrays, name):
    return {"w": arrays[name + "/kernel"], "b": arrays[name + "/bias"]}


def trunk(arrays, head):
    norm = lambda i: {"scale": arrays[f"MLP_0/LayerNorm_{i}/scale"], "shift": arrays[f"MLP_0/LayerNorm_{i}/bias"]}
    layers = [{**linear(arrays, f"MLP_0/Dense_{i}"), **norm(i)} for i in range(3)]
    return {"layers": layers, "head": linear(arrays, head)}


def flow(arrays):
    def embedder(name):
        hidden, out = (linear(arrays, f"{name}/MLP_0/Dense_{i}") for i in (0, 1))
        return {"f": arrays[name + "/FourierFeatures_0/kernel"][:, 0], "hidden": hidden, "out": out}

    t, h = embedder("TimestepEmbedder_0"), embedder("TimestepEmbedder_1")
    return {"t": t, "h": h, "trunk": trunk(arrays, "MLP_0/Dense_3")}


def networks(arrays, prefix):
    """What learns, as update_jax.py holds it: parameters, or their gradients."""
    return {
        "actor": flow(under(arrays, prefix + "actor/")),
        "divergence": flow(under(arrays, prefix + "logp_mvel/")),
        "critics": critics(arrays, prefix + "critic_"),
        "log_alpha": arrays[prefix + "temp/log_temp"],
    }


def critics(arrays, prefix):
    return [trunk(under(arrays, f"{prefix}{i}/"), "Dense_0") for i in (1, 2)]


class Recorded:
    """The reference's random numbers in place of update_jax.Draws."""

    def __init__(self, arrays):
        self.arrays = arrays

    def normal(self, name, shape):
        assert self.arrays[name].shape == shape, (name, self.arrays[name].shape, shape)
        return self.arrays[name]

    def truncated_normal(self, name, low, high, shape):
        return self.normal(name, shape)

    def times(self, name, rows):
        return self.normal(name + "_t", (rows, 1)), self.normal(name + "_r", (rows, 1))


class Judge:
    """Compares, counts, and remembers the worst; a deviation of 1 is what is allowed."""

    def __init__(self, tolerances):
        self.tolerances, self.compared, self.worst = tolerances, 0, (0.0, "nothing")

    def allowed(self, case, key, field):
        for entries in (self.tolerances.get(case, {}), self.tolerances["small_perturbed"]):
            if field in entries.get(key, {}):
                return entries[key][field]
        return 0.0

    def note(self, name, deviation):
        self.compared += 1
        # What is no number compares as the worst.
        deviation = deviation if np.isfinite(deviation) else np.inf
        self.worst = max(self.worst, (float(deviation), name))

    def number(self, case, name, got, want, key):
        got, want = float(got), float(want)
        recorded = self.allowed(case, key, "max_abs")
        self.note(f"{case}: {name}", abs(got - want) / (FACTOR * max(recorded, EPSILON * max(abs(want), 1e-3))))

    def leaves(self, got, want, compare):
        pairs = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree_util.tree_leaves(want), strict=True)
        for (path, ours), theirs in pairs:
            ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            assert ours.shape == theirs.shape, (jax.tree_util.keystr(path), ours.shape, theirs.shape)
            compare(jax.tree_util.keystr(path), np.abs(ours - theirs), np.abs(theirs).max())

    def gradients(self, case, name, got, want):
        allowed = FACTOR * max(self.allowed(case, f"grad/{name}", "worst_rel_to_tensor_max"), EPSILON)
        note = lambda path, off, scale: self.note(f"{case}: grad/{name}{path}", off.max() / (allowed * max(scale, 1e-12)))
        self.leaves(got, want, note)

    def parameters(self, case, name, got, want):
        """After Adam an element whose gradient is rounding noise may differ by a whole step; 99 % may not."""
        recorded = self.allowed(case, f"after/{name}", "q99_abs")

        def compare(path, off, scale):
            allowed, whole = FACTOR * max(recorded, EPSILON * scale), 2 * update_jax.RATE
            most = np.sort(off.ravel())[(off.size - 1) * 99 // 100]
            self.note(f"{case}: after/{name}{path}", np.maximum(most / allowed, off.max() / (whole + allowed)))

        self.leaves(got, want, compare)


def start(arrays):
    as_jax = lambda tree: jax.tree_util.tree_map(jnp.asarray, tree)
    targets = arrays if any(name.startswith("param/target_critic_") for name in arrays) else None
    prefix = "param/target_critic_" if targets else "param/critic_"
    return update_jax.start(as_jax(networks(arrays, "param/")), as_jax(critics(arrays, prefix)))


def batch_of(arrays):
    names = {"s": "observations", "a": "actions", "r": "rewards", "m": "masks", "s2": "next_observations"}
    return {short: arrays["batch/" + name] for short, name in names.items()}


@functools.partial(jax.jit, static_argnames="clipped")
def updated(state, batch, draws, clipped):
    return update_jax.update(state, batch, Recorded(draws), clipped)


def whole_update(judge, case, arrays, expected, clipped):
    """One update from the file's parameters: losses, and where the file holds them gradients and what is learnt."""
    state, losses = updated(start(arrays), batch_of(arrays), under(arrays, "draw/"), clipped)
    for name, got in zip(LOSSES, losses):
        judge.number(case, name, got, expected["out/" + name], "out/" + name)
    # After the first update Adam's first moment is a tenth of the gradient.
    tenfold = lambda moments: jax.tree_util.tree_map(lambda m: 10 * m, moments[0])
    params, moments = state["params"], state["moments"]
    entropy = float(tenfold(moments["log_alpha"])) / float(arrays["out/alpha"]) + entropy_target(arrays)
    judge.number(case, "entropy", entropy, expected["out/entropy"], "out/entropy")
    if expected is not arrays:
        return
    want, gradients = networks(arrays, "after/"), networks(arrays, "grad/")
    for name, ours in [("actor", "actor"), ("logp_mvel", "divergence"), ("temp", "log_alpha")]:
        judge.gradients(case, name, tenfold(moments[ours]), gradients[ours])
        judge.parameters(case, name, params[ours], want[ours])
    targets = critics(arrays, "after/target_critic_")
    for i in (0, 1):
        judge.gradients(case, f"critic_{i + 1}", tenfold(moments["critics"][i]), gradients["critics"][i])
        judge.parameters(case, f"critic_{i + 1}", params["critics"][i], want["critics"][i])
        judge.parameters(case, f"target_critic_{i + 1}", state["targets"][i], targets[i])


def entropy_target(arrays):
    return update_jax.TARGET_ENTROPY_PER_DIM * arrays["batch/actions"].shape[1]


def alpha(state):
    return jnp.exp(state["params"]["log_alpha"])


def own_times(judge, arrays):
    t, r = update_jax.Draws(jax.random.PRNGKey(0)).times("actor", len(arrays["draw/actor_t"]))
    same = np.array_equal(t == r, arrays["draw/actor_t"] == arrays["draw/actor_r"])
    judge.note("the rows with r = t, and r above t in none", 0.0 if same and bool(jnp.all(r <= t)) else np.inf)


def row_of_updates(judge, case, arrays, recorded):
    state, batch = start(arrays), batch_of(arrays)
    steps = sorted({int(name[4 : name.index("/")]) for name in recorded if name.startswith("step")})
    assert steps == [0, 1, 2, 3], steps
    for step in steps:
        prefix = f"step{step}/out/"
        judge.number(case, prefix + "alpha", alpha(state), recorded[prefix + "alpha"], "out/alpha")
        state, losses = updated(state, batch, under(recorded, f"step{step}/draw/"), True)
        for name, got in zip(LOSSES, losses):
            judge.number(case, prefix + name, got, recorded[prefix + name], "out/" + name)
    judge.number(case, "final_alpha", alpha(state), recorded["final_alpha"], "out/alpha")


def main():
    folder = pathlib.Path(sys.argv[1])
    judge = Judge(json.loads((folder / "tolerance.json").read_text()))
    files = {path.stem: read(path) for path in folder.glob("small_*.safetensors")}
    for case in ("small_fresh", "small_perturbed"):
        whole_update(judge, case, files[case], files[case], True)
    perturbed = files["small_perturbed"]
    whole_update(judge, "small_perturbed_nocdq", perturbed, files["small_perturbed_nocdq"], False)
    row_of_updates(judge, "small_traj4", perturbed, files["small_traj4"])
    own_times(judge, perturbed)
    (worst, name), words = judge.worst, f"JAX {jax.__version__} on {DEVICE.device_kind}"
    if worst > 1:
        sys.exit(f"{words} does not compute the reference's update: {name} deviates by {worst:.3g} times what is allowed")
    print(
        f"the peer computes the same update ({words}): {judge.compared} arrays of 7 updates of the reference compared, "
        f"largest deviation {worst:.2f} of what is allowed ({name})"
    )


if __name__ == "__main__":
    main()
