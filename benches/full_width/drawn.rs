//! Weights drawn by the names of a file that is nowhere.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use ldm_nn::weights::{KeyMap, Loader, ParameterPath, WeightFile};
use ldm_test_support::write_weights;

/// The names and shapes that a file has for a module; none of its parameters is made for that.
struct FileShapes<'a> {
    path: ParameterPath,
    keys: &'a dyn KeyMap,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for FileShapes<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let entry = self.keys.entry(&self.path.joined()).expect("a name");
        let shape = entry.layout.file_shape(&param.lazy_shape()).expect("a shape that fits");
        self.shapes.insert(entry.key, shape);
    }
}

/// The module with the weights that its file's names give.
pub fn drawn<M: Module>(module: M, keys: &dyn KeyMap, prefix: &str) -> M {
    let mut visitor = FileShapes { path: ParameterPath::default(), keys, shapes: BTreeMap::new() };
    module.visit(&mut visitor);
    let shapes: Vec<_> =
        visitor.shapes.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write_weights(&path, &shapes);
    let file = WeightFile::open(&path).unwrap();
    let (module, report) = Loader::new(keys).prefix(prefix).load(module, &file).unwrap();
    assert!(report.kept.is_empty() && report.unknown.is_empty(), "{report:?}");
    module
}
