"""One action for one observation in ONNX Runtime, JAX and PyTorch: the peers of `bench inference`.

usage: inference.py WEIGHTS.safetensors
The file holds the policy's parameters under their names, an observation, noise, and the action that came of them. Each
peer gives the same action (checked to 1e-4) before it is timed. The first line of JSON says what each peer is, or what it
misses; then every line {"peer": name, "samples": n} is answered with {"times_us": [...]}.
One thread; in all of them the time embeddings are folded into constants. ONNX Runtime's inputs and outputs are bound;
PyTorch runs what is faster, a frozen trace or torch.compile (which needs a C++ compiler).
"""
import contextlib
import json
import os
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
# What torch.compile builds is in nobody's way afterwards.
built = tempfile.TemporaryDirectory(prefix="mfpo-inference-")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = built.name
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np


def read(path):
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(body[begin:end], np.float32).reshape(entry["shape"])
    return tensors


P = read(sys.argv[1])
OBSERVATION, NOISE, ACTION = P["observation"][None], P["noise"][None], P["action"][None]
STEPS = int(P["steps"][0])
S, A = OBSERVATION.shape[1], NOISE.shape[1]
H = 1.0 / STEPS


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def embed(index, z):
    name = f"TimestepEmbedder_{index}"
    f = 2 * np.pi * z * P[f"{name}/FourierFeatures_0/kernel"][:, 0]
    x = np.concatenate([np.cos(f), np.sin(f)])
    for i in (0, 1):
        x = x @ P[f"{name}/MLP_0/Dense_{i}/kernel"] + P[f"{name}/MLP_0/Dense_{i}/bias"]
        x = gelu(x) if i == 0 else x
    return x


# The condition of each step as a bias of the first layer.
FIRST = P["MLP_0/Dense_0/kernel"]
BIASES = [
    ((embed(0, i * H) + embed(1, H)) @ FIRST[A + S :] + P["MLP_0/Dense_0/bias"]).astype(np.float32)
    for i in range(STEPS, 0, -1)
]
LAYERS = sum(name.startswith("MLP_0/LayerNorm_") and name.endswith("/scale") for name in P)


def difference(name, call):
    got = np.asarray(call())
    difference = float(np.max(np.abs(got - ACTION)))
    assert difference < 1e-4, f"{name} gives another action: {got} and {ACTION}"
    return difference


def times_us(call, samples):
    # The other side had the processor's caches.
    for _ in range(50):
        call()
    times = []
    for _ in range(samples):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e3)
    return times


def onnxruntime_call():
    import onnxruntime
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    constant("x_kernel", FIRST[:A]), constant("s_kernel", FIRST[A : A + S]), constant("h", H)
    constant("low", -1.0), constant("high", 1.0)
    for i in range(LAYERS):
        for kind in ("scale", "bias"):
            constant(f"{kind}_{i}", P[f"MLP_0/LayerNorm_{i}/{kind}"])
        if i > 0:
            constant(f"kernel_{i}", P[f"MLP_0/Dense_{i}/kernel"]), constant(f"b_{i}", P[f"MLP_0/Dense_{i}/bias"])
    constant("head", P[f"MLP_0/Dense_{LAYERS}/kernel"]), constant("head_bias", P[f"MLP_0/Dense_{LAYERS}/bias"])
    share, x = node("MatMul", ["observation", "s_kernel"], "share"), "noise"
    for step, bias in enumerate(BIASES):
        constant(f"condition_{step}", bias)
        z = node("Gemm", [x, "x_kernel", f"condition_{step}"], f"first_{step}")
        z = node("Add", [z, share], f"shared_{step}")
        for i in range(LAYERS):
            if i > 0:
                z = node("Gemm", [z, f"kernel_{i}", f"b_{i}"], f"z_{step}_{i}")
            z = node("LayerNormalization", [z, f"scale_{i}", f"bias_{i}"], f"n_{step}_{i}", epsilon=1e-6)
            z = node("Gelu", [z], f"a_{step}_{i}", approximate="tanh")
        u = node("Gemm", [z, "head", "head_bias"], f"u_{step}")
        x = node("Sub", [x, node("Mul", [u, "h"], f"hu_{step}")], f"x_{step}")
    node("Clip", [x, "low", "high"], "action")
    value = lambda name, size: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
    inputs = [value("observation", S), value("noise", A)]
    graph = helper.make_graph(nodes, "policy", inputs, [value("action", A)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    output = np.zeros((1, A), np.float32)
    for name, array in (("observation", OBSERVATION), ("noise", NOISE)):
        array = np.ascontiguousarray(array)
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        keep.append(array)
    binding.bind_output("action", "cpu", 0, np.float32, output.shape, output.ctypes.data)

    def call():
        session.run_with_iobinding(binding)
        return output

    return onnxruntime.__version__, call


def forward(clip, affine, norm, gelu, weights, observation, x):
    share = observation @ weights["s"]
    for bias in weights["biases"]:
        z = affine(x, weights["x"], bias) + share
        for i, (kernel, b, scale, shift) in enumerate(weights["layers"]):
            z = z if i == 0 else affine(z, kernel, b)
            z = gelu(norm(z, scale, shift))
        x = x - H * affine(z, weights["head"], weights["head_bias"])
    return clip(x)


def all_weights(convert):
    layer = lambda i: (
        convert(P[f"MLP_0/Dense_{i}/kernel"]),
        convert(P[f"MLP_0/Dense_{i}/bias"]),
        convert(P[f"MLP_0/LayerNorm_{i}/scale"]),
        convert(P[f"MLP_0/LayerNorm_{i}/bias"]),
    )
    return {
        "x": convert(FIRST[:A]),
        "s": convert(FIRST[A : A + S]),
        "biases": [convert(bias) for bias in BIASES],
        "layers": [layer(i) for i in range(LAYERS)],
        "head": convert(P[f"MLP_0/Dense_{LAYERS}/kernel"]),
        "head_bias": convert(P[f"MLP_0/Dense_{LAYERS}/bias"]),
    }


def jax_call():
    import jax
    import jax.numpy as jnp

    weights = all_weights(jnp.array)

    def norm(z, scale, shift):
        mean = jnp.mean(z, -1, keepdims=True)
        variance = jnp.mean(z * z, -1, keepdims=True) - mean * mean
        return (z - mean) * jax.lax.rsqrt(variance + 1e-6) * scale + shift

    def act(observation, x):
        clip = lambda x: jnp.clip(x, -1, 1)
        affine = lambda z, kernel, bias: z @ kernel + bias
        gelu = lambda z: jax.nn.gelu(z, approximate=True)
        return forward(clip, affine, norm, gelu, weights, observation, x)

    act = jax.jit(act)
    return jax.__version__, lambda: np.asarray(act(OBSERVATION, NOISE))


def torch_call():
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    weights = all_weights(lambda a: torch.from_numpy(np.array(a)))
    inputs = torch.from_numpy(np.array(OBSERVATION)), torch.from_numpy(np.array(NOISE))

    class Policy(torch.nn.Module):
        def forward(self, observation, x):
            clip = lambda x: x.clamp(-1, 1)
            affine = lambda z, kernel, bias: torch.addmm(bias, z, kernel)
            norm = lambda z, scale, shift: F.layer_norm(z, z.shape[-1:], scale, shift, 1e-6)
            gelu = lambda z: F.gelu(z, approximate="tanh")
            return forward(clip, affine, norm, gelu, weights, observation, x)

    def traced():
        trace = torch.jit.freeze(torch.jit.trace(Policy().eval(), inputs))
        return torch.jit.optimize_for_inference(trace)

    def compiled():
        return torch.compile(Policy().eval(), fullgraph=True)

    found = {}
    for name, make in (("frozen trace", traced), ("torch.compile", compiled)):
        try:
            with torch.inference_mode():
                policy = make()

            @torch.inference_mode()
            def call(policy=policy):
                return policy(*inputs).numpy()

            difference(name, call)
            found[name] = (sorted(times_us(call, 1000))[500], call)
        except AssertionError:
            raise
        except Exception as error:
            print(f"PyTorch without {name}: {error}", file=sys.stderr)
    name = min(found, key=lambda name: found[name][0])
    return f"{torch.__version__}, {name}", found[name][1]


keep, calls, told = [], {}, []
# What a peer says of itself must not come between the answers.
with contextlib.redirect_stdout(sys.stderr):
    for name, make in (("onnxruntime", onnxruntime_call), ("jax", jax_call), ("torch", torch_call)):
        try:
            version, calls[name] = make()
            told.append({"peer": name, "version": version, "difference": difference(name, calls[name])})
        except ModuleNotFoundError as missing:
            told.append({"peer": name, "missing": str(missing)})
print(json.dumps({"peers": told}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"times_us": times_us(calls[request["peer"]], request["samples"])}), flush=True)
