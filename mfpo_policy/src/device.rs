//! Where networks run: `cpu`, `cuda` or `cuda:N`, and what to do where that cannot be had.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The line that builds the programs for a GPU.
const BUILD: &str = "cargo xtask setup --cuda, source .deps/setup.bash, then cargo build --release --features \
                     mfpo_node/cuda,mfpo_train/cuda";

/// A device by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The processor, with the kernels of [`crate::kernel`].
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number, with candle.
    Cuda(usize),
}

/// Why a device cannot be had.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// No name of a device.
    #[error("device: expected cpu, cuda or cuda:N, got '{0}'")]
    Name(String),
    /// The program knows no GPU.
    #[error(
        "device {0} cannot be had: this program was built without the feature cuda; build it with: {BUILD}; or take the device cpu"
    )]
    NotBuilt(DeviceName),
    /// The driver or the GPU is missing.
    #[error(
        "device {device} cannot be had: expected an NVIDIA GPU of that number and its driver (nvidia-smi lists them), got: \
         {reason}; install the driver, or take the device cpu"
    )]
    NoGpu {
        /// The device that was asked for.
        device: DeviceName,
        /// What CUDA says.
        reason: String,
    },
}

impl DeviceName {
    /// The device itself.
    ///
    /// # Errors
    /// When the program was built without CUDA, or there is no such GPU or no driver.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => Err(DeviceError::NotBuilt(self)),
            Self::Cuda(number) => Device::new_cuda(number).map_err(|error| DeviceError::NoGpu {
                device: self,
                reason: reason(&error),
            }),
        }
    }
}

/// What CUDA says, on one line; its most frequent answer in words.
fn reason(error: &candle_core::Error) -> String {
    let text = error.to_string();
    match text.contains("CUDA_ERROR_NO_DEVICE") {
        true => "no driver (libcuda.so.1) or no GPU".to_owned(),
        false => text.lines().next().unwrap_or_default().to_owned(),
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        };
        match text {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number).map(Self::Cuda),
        }
        .ok_or_else(|| DeviceError::Name(text.to_owned()))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(device: DeviceName) -> Self {
        device.to_string()
    }
}

/// What computes on `device`, for a report: the processor's instruction set, or the GPU's name.
pub fn describe(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        let name = gpu.cuda_stream().context().name();
        return name.unwrap_or_else(|error| format!("a GPU without a name ({error})"));
    }
    match device {
        Device::Cpu => crate::kernel::InstructionSet::detect().name().to_owned(),
        other => format!("{:?}", other.location()),
    }
}

/// What computes a trainer's updates on `device`: [`describe`], and whether AMX computes what needs no gradient.
pub fn describe_updates(device: &Device) -> String {
    let uses_tiles = device.is_cpu() && crate::kernel::InstructionSet::detect().uses_tiles();
    let also = if uses_tiles { " and AMX" } else { "" };
    describe(device) + also
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_refused_with_what_is_expected() {
        for (text, device) in [
            ("cpu", DeviceName::Cpu),
            ("cuda:0", DeviceName::Cuda(0)),
            ("cuda:3", DeviceName::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceName>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceName>().unwrap(), DeviceName::Cuda(0));
        for bad in ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda0"] {
            let error = bad.parse::<DeviceName>().unwrap_err().to_string();
            assert!(
                error.contains("expected cpu, cuda or cuda:N") && error.contains(bad),
                "{error}"
            );
        }
    }

    #[test]
    fn the_cpu_is_always_there_and_a_gpu_that_is_not_is_refused_with_what_to_do() {
        assert!(DeviceName::Cpu.open().unwrap().is_cpu());
        // No machine has so many.
        let error = DeviceName::Cuda(4096).open().unwrap_err().to_string();
        let built = cfg!(feature = "cuda");
        let hint = if built {
            "install the driver"
        } else {
            "setup --cuda"
        };
        assert!(
            error.contains("device cuda:4096") && error.contains(hint),
            "{error}"
        );
        assert!(error.contains("take the device cpu"), "{error}");
    }
}
