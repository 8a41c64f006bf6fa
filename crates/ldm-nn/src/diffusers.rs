/// The release of diffusers that the files are written for (`_diffusers_version`): the one that the tests compare with.
pub const DIFFUSERS_VERSION: &str = "0.42.1";
