//! A method of any type in a box that is itself a Burn module.
//!
//! A module's visitors and mappers have methods generic over a tensor's rank, which a trait object
//! cannot have. They cross the boundary as `Any` with the rank beside it, and get their type back
//! on the other side. This is the only file that knows.

use std::any::Any;
use std::fmt::Debug;

use burn::module::{Devices, Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::hooks::AllHooks;
use crate::method::AllMethod;
use crate::{
    Base, Edits, Exchange, ExtraKeys, Insert, LossContext, Method, NormEdit, Pass, Result,
    SideNetworks, Site, Stage, StepContext, TableEdit, Tokens,
};

/// A method whose type is known at run time only.
#[derive(Debug)]
pub struct BoxedMethod {
    method: Box<dyn AnyMethod>,
    saved: bool,
}

impl BoxedMethod {
    /// Boxes a method.
    pub fn new(method: impl Method + Module + 'static) -> Self {
        Self { method: Box::new(method), saved: true }
    }

    /// The method itself, if it is an `M`; otherwise the box again.
    ///
    /// # Errors
    /// The box, if it holds another type.
    pub fn downcast<M: Method + 'static>(self) -> std::result::Result<M, Self> {
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
    pub fn downcast_ref<M: Method + 'static>(&self) -> Option<&M> {
        self.method.as_any().downcast_ref()
    }
}

impl Clone for BoxedMethod {
    fn clone(&self) -> Self {
        self.with(self.method.boxed_clone())
    }
}

/// A method with the part of [`Module`] that a trait object can have.
trait AnyMethod: Method {
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
}

impl<M: Method + Module + 'static> AnyMethod for M {
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

impl AllHooks for BoxedMethod {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        self.method.linear(site, pass)
    }
    fn norm(&self, site: &Site, pass: &Pass<'_>) -> NormEdit {
        self.method.norm(site, pass)
    }
    fn table(&self, site: &Site, pass: &Pass<'_>) -> TableEdit {
        self.method.table(site, pass)
    }
    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        self.method.tokens(stage, site, tokens, pass)
    }
    fn attention(&self, site: &Site, pass: &Pass<'_>) -> ExtraKeys {
        self.method.attention(site, pass)
    }
    fn sublayer<'a>(&'a self, site: &Site, pass: &Pass<'_>) -> Insert<'a> {
        self.method.sublayer(site, pass)
    }
    fn beside<'a>(&'a self, site: &Site, pass: &Pass<'_>) -> SideNetworks<'a> {
        self.method.beside(site, pass)
    }
    fn needs_padding(&self) -> bool {
        self.method.needs_padding()
    }
    fn needs_every_token(&self) -> bool {
        self.method.needs_every_token()
    }
}

impl AllMethod for BoxedMethod {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        if self.saved {
            self.method.exchange(file, base);
        }
    }
    fn merge_obstacle(&self) -> Option<String> {
        self.method.merge_obstacle()
    }
    fn loss(&self, context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        self.method.loss(context)
    }
    fn precondition(&mut self, gradients: &mut GradientsParams) {
        self.method.precondition(gradients);
    }
    fn after_step(&mut self, context: &StepContext<'_>) {
        self.method.after_step(context);
    }
    fn adopt(&mut self, below: Vec<Self>) -> Vec<Self> {
        self.method.adopt(below)
    }
    fn finish(&mut self) {
        self.method.finish();
    }
    fn virtual_tokens(&self) -> usize {
        self.method.virtual_tokens()
    }
    fn lr_factors(&self) -> Vec<(String, f64)> {
        self.method.lr_factors()
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
