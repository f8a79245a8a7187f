//! An MP4 file with one track of H.264.
//!
//! The encoder gives NAL units in Annex B of H.264, each after a start code. In MP4 a sample's units follow their
//! lengths instead, and the parameter sets (SPS, PPS) stand in the header of the track.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use openh264::OpenH264API;
use openh264::encoder::{
    EncodedBitStream, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, QpRange,
    RateControlMode, VuiConfig,
};
use openh264::formats::{RgbSliceU8, YUVBuffer};
use shiguredo_mp4::boxes::{Avc1Box, AvccBox, SampleEntry, VisualSampleEntryFields};
use shiguredo_mp4::mux::{Mp4FileMuxer, Sample};
use shiguredo_mp4::{TrackKind, Uint};

use super::FilmSize;
use crate::publish::unfinished;

/// Units of time in a second, which control periods are multiples of.
const TIMESCALE: NonZeroU32 = NonZeroU32::new(90_000).unwrap();
/// Time between two pictures that do not need others, where a player can jump to, s.
const KEY_EVERY: f64 = 2.0;
/// How coarse the pictures are, 0 to 51: edges and the grid of the floor stay sharp, a second takes about 50 kB.
const COARSENESS: u8 = 24;
/// Types of NAL units.
const NAL_TYPE: u8 = 0x1f;
const SEQUENCE_PARAMETERS: u8 = 7;
const PICTURE_PARAMETERS: u8 = 8;

/// A film that is being written.
pub(super) struct Mp4 {
    /// Where it will be once it is whole.
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    encoder: Encoder,
    muxer: Mp4FileMuxer,
    size: FilmSize,
    /// How long a picture stands, [`TIMESCALE`].
    duration: u32,
    /// Bytes written.
    position: u64,
    pictures: u64,
}

impl Mp4 {
    /// A film in the file `path`, in which each picture stands for `seconds`.
    pub(super) fn create(path: &Path, size: FilmSize, seconds: f64) -> anyhow::Result<Self> {
        ensure!(path.file_name().is_some(), "the film's path names no file");
        let temporary = unfinished(path);
        let cannot_write = || format!("cannot write {}", path.display());
        let mut file = BufWriter::new(File::create(&temporary).with_context(cannot_write)?);
        let muxer = Mp4FileMuxer::new()?;
        file.write_all(muxer.initial_boxes_bytes())
            .with_context(cannot_write)?;
        Ok(Self {
            encoder: Encoder::with_api_config(OpenH264API::from_source(), settings(seconds))?,
            position: muxer.initial_boxes_bytes().len() as u64,
            path: path.to_owned(),
            duration: (seconds * f64::from(TIMESCALE.get())).round().max(1.0) as u32,
            pictures: 0,
            temporary,
            file,
            muxer,
            size,
        })
    }

    /// Adds a picture, `[height, width, 3]`.
    pub(super) fn add(&mut self, rgb: &[u8]) -> anyhow::Result<()> {
        let size = (self.size.width as usize, self.size.height as usize);
        let picture = YUVBuffer::from_rgb8_source(RgbSliceU8::new(rgb, size));
        let encoded = self.encoder.encode(&picture)?;
        let keyframe = matches!(encoded.frame_type(), FrameType::IDR | FrameType::I);
        let units = Units::of(&encoded);
        ensure!(!units.sample.is_empty(), "the encoder left a picture out");
        self.file
            .write_all(&units.sample)
            .with_context(|| format!("cannot write {}", self.temporary.display()))?;
        let entry = if self.pictures == 0 {
            Some(units.entry(self.size)?)
        } else {
            None
        };
        self.muxer.append_sample(&Sample {
            track_kind: TrackKind::Video,
            sample_entry: entry,
            keyframe,
            timescale: TIMESCALE,
            duration: self.duration,
            composition_time_offset: None,
            data_offset: self.position,
            data_size: units.sample.len(),
        })?;
        self.position += units.sample.len() as u64;
        self.pictures += 1;
        Ok(())
    }

    /// Completes the file and gives it its name.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        ensure!(self.pictures > 0, "the film has no pictures");
        let boxes = self.muxer.finalize()?;
        let mut write = || {
            for (offset, bytes) in boxes.offset_and_bytes_pairs() {
                self.file.seek(SeekFrom::Start(offset))?;
                self.file.write_all(bytes)?;
            }
            self.file.flush()?;
            fs::rename(&self.temporary, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for Mp4 {
    /// A film that was not finished leaves nothing behind.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// The same quality throughout, every picture, on one core: other cores learn.
fn settings(seconds: f64) -> EncoderConfig {
    EncoderConfig::new()
        .rate_control_mode(RateControlMode::Off)
        .qp(QpRange::new(COARSENESS, COARSENESS))
        .skip_frames(false)
        .max_frame_rate(FrameRate::from_hz((1.0 / seconds) as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames(
            (KEY_EVERY / seconds).ceil() as u32
        ))
        .vui(VuiConfig::bt601())
        .num_threads(1)
}

/// What one picture was encoded into.
#[derive(Default)]
struct Units {
    /// Each unit after its length, parameter sets left out.
    sample: Vec<u8>,
    sequence: Vec<Vec<u8>>,
    picture: Vec<Vec<u8>>,
}

impl Units {
    fn of(encoded: &EncodedBitStream<'_>) -> Self {
        let mut units = Self::default();
        for layer in (0..encoded.num_layers()).filter_map(|index| encoded.layer(index)) {
            for unit in (0..layer.nal_count()).filter_map(|index| layer.nal_unit(index)) {
                units.add(without_start_code(unit));
            }
        }
        units
    }

    fn add(&mut self, unit: &[u8]) {
        match unit.first().map(|header| header & NAL_TYPE) {
            None => {}
            Some(SEQUENCE_PARAMETERS) => self.sequence.push(unit.to_vec()),
            Some(PICTURE_PARAMETERS) => self.picture.push(unit.to_vec()),
            Some(_) => {
                self.sample.extend((unit.len() as u32).to_be_bytes());
                self.sample.extend(unit);
            }
        }
    }

    /// The header of the track.
    fn entry(&self, size: FilmSize) -> anyhow::Result<SampleEntry> {
        let first = self.sequence.first();
        let first = first.ok_or_else(|| anyhow!("the encoder gave no sequence parameters"))?;
        let &[_, profile, compatibility, level, ..] = first.as_slice() else {
            return Err(anyhow!("the encoder's sequence parameters are too short"));
        };
        Ok(SampleEntry::Avc1(Avc1Box {
            visual: VisualSampleEntryFields {
                data_reference_index: VisualSampleEntryFields::DEFAULT_DATA_REFERENCE_INDEX,
                width: size.width as u16,
                height: size.height as u16,
                horizresolution: VisualSampleEntryFields::DEFAULT_HORIZRESOLUTION,
                vertresolution: VisualSampleEntryFields::DEFAULT_VERTRESOLUTION,
                frame_count: VisualSampleEntryFields::DEFAULT_FRAME_COUNT,
                compressorname: VisualSampleEntryFields::NULL_COMPRESSORNAME,
                depth: VisualSampleEntryFields::DEFAULT_DEPTH,
            },
            avcc_box: AvccBox {
                avc_profile_indication: profile,
                profile_compatibility: compatibility,
                avc_level_indication: level,
                length_size_minus_one: Uint::new(3),
                sps_list: self.sequence.clone(),
                pps_list: self.picture.clone(),
                chroma_format: None,
                bit_depth_luma_minus8: None,
                bit_depth_chroma_minus8: None,
                sps_ext_list: Vec::new(),
            },
            unknown_boxes: Vec::new(),
        }))
    }
}

/// The encoder begins each unit with 00 00 01 or 00 00 00 01.
fn without_start_code(unit: &[u8]) -> &[u8] {
    let zeros = unit.iter().take_while(|byte| **byte == 0).count();
    unit.get(zeros + 1..).unwrap_or_default()
}
