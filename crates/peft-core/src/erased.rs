//! A method of any type in a box that is itself a Burn module.
//!
//! A module's visitors and mappers have methods generic over a tensor's rank, which a trait object
//! cannot have. They cross the boundary as `Any` with the rank beside it, and get their type back
//! on the other side. This is the only file that knows.

use std::any::Any;
use std::fmt::Debug;

use burn::module::{Devices, Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::{
    Base, Calibration, Change, Embedded, Exchange, FrozenWeight, Hooks, KeyValue, LinearLayer,
    Method, NormLayer, Probe, Progress, ResidualLayer, ResidualStates, Site,
};

/// A method whose type is known at run time only.
#[derive(Debug)]
pub struct BoxedMethod {
    method: Box<dyn AnyMethod>,
    saved: bool,
}

impl BoxedMethod {
    /// Boxes a method.
    pub fn new(method: impl Method) -> Self {
        Self { method: Box::new(method), saved: true }
    }

    /// The method itself, if it is an `M`; otherwise the box again.
    ///
    /// # Errors
    /// The box, if it holds another type.
    pub fn downcast<M: Method>(self) -> Result<M, Self> {
        match self.downcast_ref::<M>() {
            Some(_) => Ok(*self.method.into_any().downcast().expect("it was just looked at")),
            None => Err(self),
        }
    }

    /// The method as a fixed part of the model: nothing of it is trained, and nothing is written
    /// to an adapter file.
    pub fn frozen(self) -> Self {
        Self { saved: false, ..self.no_grad() }
    }

    fn with(&self, method: Box<dyn AnyMethod>) -> Self {
        Self { method, saved: self.saved }
    }

    /// The method, if it is an `M`.
    pub fn downcast_ref<M: Method>(&self) -> Option<&M> {
        self.method.as_any().downcast_ref()
    }
}

impl Clone for BoxedMethod {
    fn clone(&self) -> Self {
        self.with(self.method.boxed_clone())
    }
}

/// The object-safe half of [`Method`].
trait AnyMethod: Hooks {
    fn as_hooks(&self) -> &dyn Hooks;
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn boxed_clone(&self) -> Box<dyn AnyMethod>;
    fn visit_any(&self, visitor: &mut dyn AnyVisitor);
    fn map_any(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn AnyMethod>;
    fn devices_any(&self, devices: Devices) -> Devices;
    fn to_device_any(self: Box<Self>, device: &Device) -> Box<dyn AnyMethod>;
    fn fork_any(self: Box<Self>, device: &Device) -> Box<dyn AnyMethod>;
    fn train_any(self: Box<Self>) -> Box<dyn AnyMethod>;
    fn valid_any(&self) -> Box<dyn AnyMethod>;
    fn materialize_any(self: Box<Self>) -> Box<dyn AnyMethod>;
    fn exchange_any(&mut self, file: &mut Exchange<'_>, base: &Base);
    fn change_any(&self, site: &Site) -> Change;
    fn merge_obstacle_any(&self) -> Option<String>;
    fn prepare_any(&mut self, batches: &mut dyn Calibration);
    fn penalty_any(&self) -> Option<Tensor<1>>;
    fn after_step_any(&mut self, progress: Progress);
    fn finish_any(&mut self);
    fn virtual_tokens_any(&self) -> usize;
    fn observe_any(&mut self, probe: &Probe);
    fn lr_factors_any(&self) -> Vec<(String, f64)>;
}

impl<M: Method> AnyMethod for M {
    fn as_hooks(&self) -> &dyn Hooks {
        self
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
    fn boxed_clone(&self) -> Box<dyn AnyMethod> {
        Box::new(self.clone())
    }
    fn visit_any(&self, visitor: &mut dyn AnyVisitor) {
        self.visit(&mut Erase(visitor));
    }
    fn map_any(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn AnyMethod> {
        Box::new(self.map(&mut Erase(mapper)))
    }
    fn devices_any(&self, devices: Devices) -> Devices {
        self.collect_devices(devices)
    }
    fn to_device_any(self: Box<Self>, device: &Device) -> Box<dyn AnyMethod> {
        Box::new(self.to_device(device))
    }
    fn fork_any(self: Box<Self>, device: &Device) -> Box<dyn AnyMethod> {
        Box::new(self.fork(device))
    }
    fn train_any(self: Box<Self>) -> Box<dyn AnyMethod> {
        Box::new(Module::train(*self))
    }
    fn valid_any(&self) -> Box<dyn AnyMethod> {
        Box::new(self.valid())
    }
    fn materialize_any(self: Box<Self>) -> Box<dyn AnyMethod> {
        Box::new(self.materialize())
    }
    fn exchange_any(&mut self, file: &mut Exchange<'_>, base: &Base) {
        self.exchange(file, base);
    }
    fn change_any(&self, site: &Site) -> Change {
        self.change(site)
    }
    fn merge_obstacle_any(&self) -> Option<String> {
        self.merge_obstacle()
    }
    fn prepare_any(&mut self, batches: &mut dyn Calibration) {
        self.prepare(batches);
    }
    fn penalty_any(&self) -> Option<Tensor<1>> {
        self.penalty()
    }
    fn after_step_any(&mut self, progress: Progress) {
        self.after_step(progress);
    }
    fn finish_any(&mut self) {
        self.finish();
    }
    fn virtual_tokens_any(&self) -> usize {
        self.virtual_tokens()
    }
    fn observe_any(&mut self, probe: &Probe) {
        self.observe(probe);
    }
    fn lr_factors_any(&self) -> Vec<(String, f64)> {
        self.lr_factors()
    }
}

impl Module for BoxedMethod {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.method.devices_any(devices)
    }
    fn fork(self, device: &Device) -> Self {
        Self { method: self.method.fork_any(device), saved: self.saved }
    }
    fn to_device(self, device: &Device) -> Self {
        Self { method: self.method.to_device_any(device), saved: self.saved }
    }
    fn train(self) -> Self {
        Self { method: self.method.train_any(), saved: self.saved }
    }
    fn valid(&self) -> Self {
        self.with(self.method.valid_any())
    }
    fn materialize(self) -> Self {
        Self { method: self.method.materialize_any(), saved: self.saved }
    }
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.method.visit_any(&mut Restore(visitor));
    }
    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self { method: self.method.map_any(&mut Restore(mapper)), saved: self.saved }
    }
}

impl burn::module::ModuleDisplay for BoxedMethod {}
impl burn::module::ModuleDisplayDefault for BoxedMethod {
    fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
        content.set_top_level_type("Method").add_debug_attribute("method", &self.method).optional()
    }
}

impl Hooks for BoxedMethod {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.method.as_hooks().weight(layer)
    }
    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.method.as_hooks().unmerged_weight(layer)
    }
    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        self.method.as_hooks().bias(layer)
    }
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.method.as_hooks().linear(layer, input)
    }
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.method.as_hooks().norm_gain(layer)
    }
    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.method.as_hooks().norm_bias(layer)
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        self.method.as_hooks().norm(layer, input)
    }
    fn embedding(&self, site: &Site, table: FrozenWeight) -> FrozenWeight {
        self.method.as_hooks().embedding(site, table)
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.method.as_hooks().embed(site, embedded)
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        self.method.as_hooks().layers_input(site, embedded)
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        self.method.as_hooks().key_value(site, hidden, states)
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        self.method.as_hooks().residual(layer, states)
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        self.method.as_hooks().residual_input(layer, states)
    }
    fn reads_hidden_states(&self) -> bool {
        self.method.as_hooks().reads_hidden_states()
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        self.method.as_hooks().head_input(hidden_states)
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        self.method.as_hooks().unembed(site, hidden)
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        self.method.as_hooks().for_rows(rows)
    }
}

impl Method for BoxedMethod {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        if self.saved {
            self.method.exchange_any(file, base);
        }
    }
    fn change(&self, site: &Site) -> Change {
        self.method.change_any(site)
    }
    fn merge_obstacle(&self) -> Option<String> {
        self.method.merge_obstacle_any()
    }
    fn prepare(&mut self, batches: &mut dyn Calibration) {
        self.method.prepare_any(batches);
    }
    fn penalty(&self) -> Option<Tensor<1>> {
        self.method.penalty_any()
    }
    fn after_step(&mut self, progress: Progress) {
        self.method.after_step_any(progress);
    }
    fn finish(&mut self) {
        self.method.finish_any();
    }
    fn virtual_tokens(&self) -> usize {
        self.method.virtual_tokens_any()
    }
    fn observe(&mut self, probe: &Probe) {
        self.method.observe_any(probe);
    }
    fn lr_factors(&self) -> Vec<(String, f64)> {
        self.method.lr_factors_any()
    }
}

/// A parameter behind `Any`: a `Param<Tensor<rank, kind>>`.
struct AnyParam {
    rank: usize,
    value: Box<dyn Any>,
}

impl AnyParam {
    fn take<T: 'static>(self) -> T {
        *self.value.downcast().expect("a mapper returned a parameter of another type")
    }
}

trait AnyVisitor {
    fn float(&mut self, rank: usize, param: &dyn Any);
    fn int(&mut self, rank: usize, param: &dyn Any);
    fn bool(&mut self, rank: usize, param: &dyn Any);
    fn flag(&mut self, flag: &Param<Flag>);
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
}

trait AnyMapper {
    fn float(&mut self, param: AnyParam) -> AnyParam;
    fn int(&mut self, param: AnyParam) -> AnyParam;
    fn bool(&mut self, param: AnyParam) -> AnyParam;
    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag>;
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
}

/// From a generic visitor or mapper to the object-safe one.
struct Erase<'a, T: ?Sized>(&'a mut T);

/// From the object-safe visitor or mapper back to the generic one.
struct Restore<'a, T>(&'a mut T);

impl ModuleVisitor for Erase<'_, dyn AnyVisitor + '_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.float(D, param);
    }
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.int(D, param);
    }
    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.bool(D, param);
    }
    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.flag(flag);
    }
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }
    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }
}

impl ModuleMapper for Erase<'_, dyn AnyMapper + '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0.float(AnyParam { rank: D, value: Box::new(param) }).take()
    }
    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.0.int(AnyParam { rank: D, value: Box::new(param) }).take()
    }
    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.0.bool(AnyParam { rank: D, value: Box::new(param) }).take()
    }
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.flag(flag)
    }
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }
    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }
}

/// Calls `$body` with the constant `$d` equal to the rank.
macro_rules! with_rank {
    ($rank:expr, $d:ident => $body:expr) => {
        match $rank {
            1 => with_rank!(@ 1, $d, $body),
            2 => with_rank!(@ 2, $d, $body),
            3 => with_rank!(@ 3, $d, $body),
            4 => with_rank!(@ 4, $d, $body),
            5 => with_rank!(@ 5, $d, $body),
            6 => with_rank!(@ 6, $d, $body),
            rank => panic!("a method's parameters have ranks 1 to 6, not {rank}"),
        }
    };
    (@ $value:literal, $d:ident, $body:expr) => {{
        const $d: usize = $value;
        $body
    }};
}

fn restored<T: 'static>(param: &dyn Any) -> &T {
    param.downcast_ref().expect("a parameter keeps its type across the boundary")
}

impl<V: ModuleVisitor> AnyVisitor for Restore<'_, V> {
    fn float(&mut self, rank: usize, param: &dyn Any) {
        with_rank!(rank, D => self.0.visit_float(restored::<Param<Tensor<D>>>(param)));
    }
    fn int(&mut self, rank: usize, param: &dyn Any) {
        with_rank!(rank, D => self.0.visit_int(restored::<Param<Tensor<D, Int>>>(param)));
    }
    fn bool(&mut self, rank: usize, param: &dyn Any) {
        with_rank!(rank, D => self.0.visit_bool(restored::<Param<Tensor<D, Bool>>>(param)));
    }
    fn flag(&mut self, flag: &Param<Flag>) {
        self.0.visit_flag(flag);
    }
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }
    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }
}

impl<M: ModuleMapper> AnyMapper for Restore<'_, M> {
    fn float(&mut self, param: AnyParam) -> AnyParam {
        let rank = param.rank;
        let value: Box<dyn Any> = with_rank!(rank, D =>
            Box::new(self.0.map_float(param.take::<Param<Tensor<D>>>())));
        AnyParam { rank, value }
    }
    fn int(&mut self, param: AnyParam) -> AnyParam {
        let rank = param.rank;
        let value: Box<dyn Any> = with_rank!(rank, D =>
            Box::new(self.0.map_int(param.take::<Param<Tensor<D, Int>>>())));
        AnyParam { rank, value }
    }
    fn bool(&mut self, param: AnyParam) -> AnyParam {
        let rank = param.rank;
        let value: Box<dyn Any> = with_rank!(rank, D =>
            Box::new(self.0.map_bool(param.take::<Param<Tensor<D, Bool>>>())));
        AnyParam { rank, value }
    }
    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.map_flag(flag)
    }
    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }
    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }
}
