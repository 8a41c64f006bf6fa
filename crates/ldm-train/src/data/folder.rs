use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::{DirEntry, WalkDir};

use super::fields::{ClassNames, Fields, Label};
use super::random::{Purpose, rng, shuffle};
use super::{DataConfig, DataError, Item, Items, Layout, Location, Order, Source, metadata};

/// Extensions of pictures that are read; other files are left alone.
pub(super) const PICTURES: &[&str] = &["png", "jpg", "jpeg", "webp", "bmp"];

/// A folder of pictures: the list is held in memory, the pictures are not.
#[derive(Debug)]
pub struct Folder {
    items: Arc<Vec<Item>>,
    classes: ClassNames,
}

/// A picture that was found, before it is numbered.
pub(super) struct Found {
    pub key: String,
    pub path: PathBuf,
    pub fields: Fields,
}

impl Folder {
    /// Lists a folder as `config` says.
    ///
    /// # Errors
    ///
    /// [`DataError`], naming the file and line: see [`DataConfig::open`].
    pub fn open(config: &DataConfig) -> Result<Self, DataError> {
        let dir = &config.path;
        let (maps, files) = Maps::split(files(dir)?, config.map_suffix.as_deref());
        let mut found = match config.layout.unwrap_or_else(|| layout(dir, &files)) {
            Layout::Metadata => metadata::read(dir, config)?,
            Layout::Captions => with_captions(dir, &files)?,
            Layout::Classes => with_classes(dir, &files)?,
            Layout::Plain => pictures(dir, &files).collect(),
        };
        if let Some(split) = &config.split {
            found.retain(|f| f.fields.split.as_ref() == Some(split));
        }
        let classes = ClassNames::new(found.iter().map(|f| f.fields.class.as_ref()));
        let maps: Vec<_> = found.iter().map(|f| maps.of(&f.path)).collect::<Result<_, _>>()?;
        let item = |(index, (f, map)): (usize, (Found, Option<Location>))| Item {
            index: index as u64,
            key: f.key,
            caption: f.fields.caption.unwrap_or_default(),
            class: f.fields.class.and_then(|label| classes.number(&label)),
            picture: Location { file: f.path.into(), range: None },
            map,
            objects: f.fields.objects,
        };
        let part = |item: &Item| item.index as usize % config.part.count == config.part.index;
        let items: Vec<Item> = found.into_iter().zip(maps).enumerate().map(item).filter(part).collect();
        if items.is_empty() {
            let what = config.split.as_ref().map_or(String::new(), |split| format!(" of split {split:?}"));
            return Err(DataError::Empty { path: dir.clone(), what });
        }
        Ok(Self { items: Arc::new(items), classes })
    }
}

impl Source for Folder {
    fn items(&self) -> u64 {
        self.items.len() as u64
    }

    fn classes(&self) -> &[String] {
        self.classes.names()
    }

    fn epoch(&self, order: Order) -> Items {
        let mut indices: Vec<usize> = (0..self.items.len()).collect();
        if let Order::Shuffled { seed, epoch } = order {
            shuffle(&mut rng(seed, Purpose::Order, epoch, 0), &mut indices);
        }
        let items = self.items.clone();
        Box::new(indices.into_iter().map(move |i| Ok(items[i].clone())))
    }
}

/// Every file below a folder, in the order of their names; without those that are hidden or in hidden folders.
fn files(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let shown =
        |entry: &DirEntry| entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.');
    for entry in WalkDir::new(dir).follow_links(true).sort_by_file_name().into_iter().filter_entry(shown) {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(dir).to_path_buf();
            DataError::Io { path, source: e.into() }
        })?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

pub(super) fn extension(path: &Path) -> String {
    path.extension().map_or(String::new(), |e| e.to_string_lossy().to_lowercase())
}

fn is_picture(path: &Path) -> bool {
    PICTURES.contains(&extension(path).as_str())
}

/// The second pictures of a folder, by the first ones' paths without their extension.
struct Maps<'a> {
    suffix: Option<&'a str>,
    files: BTreeMap<PathBuf, PathBuf>,
}

impl<'a> Maps<'a> {
    /// Second pictures, and all other files.
    fn split(files: Vec<PathBuf>, suffix: Option<&'a str>) -> (Self, Vec<PathBuf>) {
        let (mut maps, mut others) = (BTreeMap::new(), Vec::new());
        for file in files {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let name = suffix.and_then(|suffix| stem.strip_suffix(suffix)?.strip_suffix('.'));
            match name.filter(|_| is_picture(&file)) {
                Some(name) => {
                    maps.insert(file.with_file_name(name), file);
                }
                None => others.push(file),
            }
        }
        (Self { suffix, files: maps }, others)
    }

    /// The one that goes with a picture; `None` where there are none at all.
    fn of(&self, picture: &Path) -> Result<Option<Location>, DataError> {
        let Some(suffix) = self.suffix else { return Ok(None) };
        match self.files.get(&picture.with_extension("")) {
            Some(file) => Ok(Some(Location { file: file.as_path().into(), range: None })),
            None => {
                let expected = picture.with_extension(format!("{suffix}.png"));
                Err(DataError::PictureWithoutMap { path: picture.into(), expected })
            }
        }
    }
}

/// What a folder's files look like.
fn layout(dir: &Path, files: &[PathBuf]) -> Layout {
    if files.contains(&dir.join("metadata.jsonl")) {
        return Layout::Metadata;
    }
    let captions: BTreeSet<_> = files.iter().filter(|f| extension(f) == "txt").collect();
    if files.iter().any(|f| is_picture(f) && captions.contains(&f.with_extension("txt"))) {
        return Layout::Captions;
    }
    // Classes are folders; pictures beside them would have none.
    let nested = files.iter().filter(|f| is_picture(f)).all(|f| f.parent() != Some(dir));
    if nested { Layout::Classes } else { Layout::Plain }
}

fn pictures<'a>(dir: &'a Path, files: &'a [PathBuf]) -> impl Iterator<Item = Found> + 'a {
    files.iter().filter(|f| is_picture(f)).map(move |path| Found {
        key: path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned(),
        path: path.clone(),
        fields: Fields::default(),
    })
}

/// Each picture has a caption beside it, each caption a picture.
fn with_captions(dir: &Path, files: &[PathBuf]) -> Result<Vec<Found>, DataError> {
    let captions: BTreeSet<PathBuf> = files.iter().filter(|f| extension(f) == "txt").cloned().collect();
    let (mut found, mut used) = (Vec::new(), BTreeSet::new());
    for mut picture in pictures(dir, files) {
        let path = picture.path.with_extension("txt");
        if !captions.contains(&path) {
            return Err(DataError::PictureWithoutCaption { path: picture.path, expected: path });
        }
        let text = std::fs::read_to_string(&path).map_err(DataError::io(&path))?;
        picture.fields.caption = Some(text.trim().to_string());
        found.push(picture);
        used.insert(path);
    }
    match captions.difference(&used).next() {
        None => Ok(found),
        Some(alone) => Err(DataError::CaptionWithoutPicture {
            path: dir.into(),
            key: alone.strip_prefix(dir).unwrap_or(alone).to_string_lossy().into_owned(),
        }),
    }
}

/// The first folder of a picture's path is its class, and its caption too.
fn with_classes(dir: &Path, files: &[PathBuf]) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    for mut picture in pictures(dir, files) {
        let inside = picture.path.strip_prefix(dir).unwrap_or(&picture.path);
        let class = match inside.components().collect::<Vec<_>>().as_slice() {
            [class, _, ..] => class.as_os_str().to_string_lossy().into_owned(),
            _ => {
                let what = format!("{} lies in no class's folder", picture.path.display());
                return Err(DataError::config("layout", Layout::Classes, what));
            }
        };
        picture.fields.caption = Some(class.replace('_', " "));
        picture.fields.class = Some(Label::Name(class));
        found.push(picture);
    }
    Ok(found)
}
