"""Where the JAX programs of `bench update` compute: cpu, cuda or cuda:N, as the benchmark's own `--device` says."""
import os
import sys


def choose(name, threads):
    """The device, on which JAX computes everything from now on, on the CPU on so many cores.

    JAX reads its environment once: nobody may have imported it yet.
    """
    platform, _, index = name.partition(":")
    if platform not in ("cpu", "cuda"):
        sys.exit(f"no device '{name}'; expected cpu, cuda or cuda:N")
    os.environ["JAX_PLATFORMS"] = platform
    # The benchmark's own updates are computed on the same GPU, and need some of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if platform == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        if threads == 1:
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax

    try:
        device = jax.devices(platform)[int(index or 0)]
    except (RuntimeError, IndexError) as error:
        sys.exit(
            f"JAX finds no device {name}: {error}. `cargo xtask bench update --cuda --peers -- --device cuda` installs a JAX "
            "for NVIDIA GPUs (benches/peers/update_cuda.txt); it needs their driver"
        )
    jax.config.update("jax_default_device", device)
    if platform == "cuda":
        # Else JAX multiplies in TF32 there; the update that it is compared with does not.
        jax.config.update("jax_default_matmul_precision", "float32")
    return device
