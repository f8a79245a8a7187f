//! Our networks, samplers, estimators, losses, gradients, optimiser and whole updates against the reference
//! implementation's own numbers (tests/golden, or the folder that MFPO_GOLDEN_DIR names). Sizes come from the files; any
//! subset of the files is accepted; every test prints how many tensors it compared.
//! They run on the CPU, with its own engine and with the one of every other device, or on the GPU that MFPO_TEST_DEVICE names;
//! on the CPU with the instruction set that MFPO_KERNEL names, and where it names none with every one that the processor has.

mod files;
mod kernels;
mod networks;
mod reference;
mod updates;
