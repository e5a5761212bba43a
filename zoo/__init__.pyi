"""The lazy names of the package, for type checkers; written by docs/generate.py."""

from zoo import registry as registry
from zoo.adapters.biomedcoop import BiomedCoOp as BiomedCoOp
from zoo.adapters.clip_adapter import ClipAdapter as ClipAdapter
from zoo.adapters.cocoop import CoCoOp as CoCoOp
from zoo.adapters.coop import CoOp as CoOp
from zoo.adapters.kgcoop import KgCoOp as KgCoOp
from zoo.adapters.linear_probe import LinearProbe as LinearProbe
from zoo.adapters.linear_probe import LogisticProbe as LogisticProbe
from zoo.adapters.lora import LoRA as LoRA
from zoo.adapters.lp_plus_plus import LPPlusPlus as LPPlusPlus
from zoo.adapters.maple import MaPLe as MaPLe
from zoo.adapters.nearl import NearlAdapter as NearlAdapter
from zoo.adapters.oca import OrthogonalCrossAttention as OrthogonalCrossAttention
from zoo.adapters.prograd import ProGrad as ProGrad
from zoo.adapters.taskres import TaskRes as TaskRes
from zoo.adapters.tip_adapter import TipAdapter as TipAdapter
from zoo.adapters.tip_adapter import TipAdapterF as TipAdapterF
from zoo.adapters.useformer import USEformer as USEformer
from zoo.adapters.zero_shot import ZeroShot as ZeroShot
from zoo.config.building import check_recipe as check_recipe
from zoo.config.recipe import read_recipe as read_recipe
from zoo.data.annotations.chest_imagenome import ChestImaGenome as ChestImaGenome
from zoo.data.annotations.chexmask import CheXmask as CheXmask
from zoo.data.annotations.coco_instances import CocoInstances as CocoInstances
from zoo.data.annotations.gemex_thinkvg import GemexThinkVg as GemexThinkVg
from zoo.data.annotations.iu_xray import IuXray as IuXray
from zoo.data.annotations.label_table import LabelTable as LabelTable
from zoo.data.annotations.mask_images import MaskImages as MaskImages
from zoo.data.annotations.medmnist import MedMnist as MedMnist
from zoo.data.annotations.mimic_cxr_jpg import MimicCxrJpg as MimicCxrJpg
from zoo.data.annotations.ms_cxr import MsCxr as MsCxr
from zoo.data.annotations.padchest_gr import PadChestGr as PadChestGr
from zoo.data.annotations.rsna_pneumonia import RsnaPneumonia as RsnaPneumonia
from zoo.data.annotations.run_length_table import RunLengthTable as RunLengthTable
from zoo.data.annotations.siim_acr import SiimAcr as SiimAcr
from zoo.data.annotations.slake import Slake as Slake
from zoo.data.annotations.vindr_cxr import VindrCxr as VindrCxr
from zoo.data.base import LoaderSpec as LoaderSpec
from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa as ChestDrrMedSegQa
from zoo.data.chest_drr.datasets.films import ChestDrrFilms as ChestDrrFilms
from zoo.data.chest_drr.datasets.findings import ChestDrrFindings as ChestDrrFindings
from zoo.data.chest_drr.datasets.masks import ChestDrrMasks as ChestDrrMasks
from zoo.data.chest_drr.datasets.reports import ChestDrrReports as ChestDrrReports
from zoo.data.chest_drr.datasets.traces import ChestDrrIvl as ChestDrrIvl
from zoo.data.classification.annotated import AnnotatedClasses as AnnotatedClasses
from zoo.data.classification.annotated import AnnotatedLabels as AnnotatedLabels
from zoo.data.classification.biomedcoop import BiomedCoOpSet as BiomedCoOpSet
from zoo.data.classification.coop_split import CoopSplit as CoopSplit
from zoo.data.classification.image_table import ImageCsv as ImageCsv
from zoo.data.classification.image_table import ImageFolder as ImageFolder
from zoo.data.conversations.annotated import AnnotatedMasks as AnnotatedMasks
from zoo.data.conversations.datasets import CocoReferring as CocoReferring
from zoo.data.conversations.datasets import MedSegFiles as MedSegFiles
from zoo.data.io.images import read_image as read_image
from zoo.data.traces.annotated import AnnotatedTraces as AnnotatedTraces
from zoo.data.traces.datasets import IvlJsonl as IvlJsonl
from zoo.decoders.interleaved import InterleavedDecoder as InterleavedDecoder
from zoo.decoders.interleaved_models import Anole as Anole
from zoo.decoders.interleaved_models import SmallInterleaved as SmallInterleaved
from zoo.decoders.vq_image import VQImage as VQImage
from zoo.encoders.clip import BiomedClip as BiomedClip
from zoo.encoders.clip import OpenClip as OpenClip
from zoo.encoders.clip import SmallClip as SmallClip
from zoo.encoders.sentence_clip import MiniLmClip as MiniLmClip
from zoo.encoders.vision import ClipVision as ClipVision
from zoo.encoders.vision import TimmVisionEncoder as TimmVisionEncoder
from zoo.encoders.vision import UnetVision as UnetVision
from zoo.engine.api import evaluate as evaluate
from zoo.engine.api import list_components as list_components
from zoo.engine.api import list_models as list_models
from zoo.engine.api import predict as predict
from zoo.engine.assembly import assemble as assemble
from zoo.engine.callbacks import best_checkpoint as best_checkpoint
from zoo.engine.callbacks import early_stopping as early_stopping
from zoo.engine.callbacks import ema as ema
from zoo.engine.comparison import compare as compare
from zoo.engine.loading import load as load
from zoo.engine.loggers import csv_logger as csv_logger
from zoo.engine.loggers import mlflow_logger as mlflow_logger
from zoo.engine.loggers import tensorboard_logger as tensorboard_logger
from zoo.engine.loggers import wandb_logger as wandb_logger
from zoo.engine.planning import plan as plan
from zoo.engine.publishing import publish as publish
from zoo.engine.training import train as train
from zoo.engine.verification import verify as verify
from zoo.errors import ZooError as ZooError
from zoo.heads.sam2_grounding import Sam2Grounding as Sam2Grounding
from zoo.heads.sam2_grounding import Sam3Grounding as Sam3Grounding
from zoo.heads.sam_grounding import SamGrounding as SamGrounding
from zoo.heads.unet_grounding import UnetGrounding as UnetGrounding
from zoo.language.causal_lm import CausalLM as CausalLM
from zoo.language.causal_lm import SmallCausalLM as SmallCausalLM
from zoo.language.causal_lm import SmolLM2 as SmolLM2
from zoo.language.global_context import CausalContext as CausalContext
from zoo.language.vision_language import VisionLanguageContext as VisionLanguageContext
from zoo.methods.clip_classification import ClipClassification as ClipClassification
from zoo.methods.clip_multi_label import ClipMultiLabel as ClipMultiLabel
from zoo.methods.clip_pretraining import ClipPretraining as ClipPretraining
from zoo.methods.grounding_baselines import FindingUnet as FindingUnet
from zoo.methods.grounding_baselines import NamedGrounding as NamedGrounding
from zoo.methods.interleaved_reasoning import InterleavedReasoning as InterleavedReasoning
from zoo.methods.interleaved_vision_language import InterleavedVisionLanguage as InterleavedVisionLanguage
from zoo.methods.medseg_r import MedSegR as MedSegR
from zoo.methods.nearl_clip import NearlClip as NearlClip
from zoo.methods.vq_tokenizer import VQTokenizer as VQTokenizer
from zoo.metrics.clinical import CheXbertF1 as CheXbertF1
from zoo.metrics.clinical import Green as Green
from zoo.metrics.clinical import RadGraphF1 as RadGraphF1
from zoo.metrics.clinical import RateScore as RateScore
from zoo.metrics.judge import Judge as Judge
from zoo.optim import adam as adam
from zoo.optim import adamw as adamw
from zoo.optim import constant as constant
from zoo.optim import cosine as cosine
from zoo.optim import held_cosine as held_cosine
from zoo.optim import linear as linear
from zoo.optim import sgd as sgd
from zoo.registry import register as register

__version__: str
__all__ = [
    "LoaderSpec",
    "ZooError",
    "__version__",
    "assemble",
    "check_recipe",
    "compare",
    "evaluate",
    "list_components",
    "list_models",
    "load",
    "plan",
    "predict",
    "publish",
    "read_image",
    "read_recipe",
    "register",
    "registry",
    "train",
    "verify",
]
