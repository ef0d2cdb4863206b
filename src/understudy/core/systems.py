"""The registry of systems: which paper each one is, where it lives and what measures its claim."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from understudy.core.errors import UserError

STAGES = ("simulate", "model", "train", "search", "compress", "audit", "retrieve", "serve")
"""The stages in the life of a surrogate, in order."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A published method, and where the library carries it.

    Parameters
    ----------
    slug : str
        Its name on the command line: lower case, words joined by hyphens.
    title, authors, year
        The paper; surnames in the order of the paper, year of publication.
    arxiv : str or None
        Identifier such as ``"2308.05732"``.
    stage : str
        The one of `STAGES` that it mainly serves.
    replaces : str
        One sentence: what stands in, and for what.
    classes : tuple of str
        Dotted paths of its public classes and functions; empty until it is built.
    reproduction : str or None
        Dotted path of the module whose ``run(scale, seed)`` measures the claims.
    """

    slug: str
    title: str
    authors: str
    year: int
    arxiv: str | None
    stage: str
    replaces: str
    classes: tuple[str, ...] = ()
    reproduction: str | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(
                f"the stage of {self.slug!r} is {self.stage!r}, not one of {', '.join(STAGES)}"
            )

    @property
    def implemented(self) -> bool:
        """Whether all of its classes, and a reproduction with a ``run``, can be imported."""
        if not self.classes or self.reproduction is None:
            return False
        try:
            for path in self.classes:
                resolve(path)
            return callable(resolve(f"{self.reproduction}.run"))
        except (ImportError, AttributeError):
            return False


def resolve(path: str) -> Any:
    """Object at a dotted path ``package.module.name``.

    Raises
    ------
    ImportError, AttributeError
        If there is no such module, or no such name in it.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ImportError(f"{path!r} is no dotted path of a module and a name")
    return getattr(importlib.import_module(module), name)


def systems() -> tuple[System, ...]:
    """All systems, in the order of their stages, by slug within a stage."""
    return _SYSTEMS


def find(slug: str) -> System:
    """System of that slug.

    Raises
    ------
    UserError
        If there is none; names the nearest slugs.
    """
    by_slug = {system.slug: system for system in systems()}
    if slug in by_slug:
        return by_slug[slug]
    near = difflib.get_close_matches(slug, by_slug, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see `understudy systems`"
    raise UserError(f"there is no system {slug!r}; {hint}")


_SYSTEMS = (
    # -- simulate -----------------------------------------------------------------------------
    System(
        slug="online-training",
        title="Training Deep Surrogate Models with Large Scale Online Learning",
        authors="Meyer, Schouler, Caulk, Ribes, Raffin",
        year=2023,
        arxiv="2306.16133",
        stage="simulate",
        replaces=(
            "Trains while solver runs stream their time steps into a bounded buffer, instead of "
            "writing a data set to disk and reading it back for many epochs."
        ),
        classes=(
            "understudy.simulate.stream.OnlineTrainer",
            "understudy.simulate.stream.ReservoirBuffer",
            "understudy.simulate.stream.FIROBuffer",
            "understudy.simulate.stream.FIFOBuffer",
            "understudy.simulate.stream.BreedSampler",
            "understudy.simulate.stream.ExternalSolver",
            "understudy.stream.send",
        ),
        reproduction="understudy.reproduce.online_training",
    ),
    # -- model --------------------------------------------------------------------------------
    System(
        slug="cape",
        title="Learning Neural PDE Solvers with Parameter-Guided Channel Attention",
        authors="Takamoto, Alesiani, Niepert",
        year=2023,
        arxiv="2304.14118",
        stage="model",
        replaces=(
            "One autoregressive network, gated by the PDE's parameters, stands in for the solver "
            "over a whole range of them."
        ),
        classes=(
            "understudy.models.operators.cape.CAPE",
            "understudy.models.operators.cape.ParameterConditioned",
            "understudy.models.operators.cape.ConcatParameters",
            "understudy.models.operators.curriculum.CurriculumRollout",
        ),
        reproduction="understudy.reproduce.cape",
    ),
    System(
        slug="deep-conjugate-direction",
        title="A Deep Conjugate Direction Method for Iteratively Solving Linear Systems",
        authors="Kaneda, Akar, Chen, Kala, Hyde, Teran",
        year=2023,
        arxiv="2205.10763",
        stage="model",
        replaces=(
            "A few iterations along directions that a convolutional network proposes stand in for "
            "many conjugate-gradient iterations on a large positive-definite system."
        ),
        classes=(
            "understudy.models.inverse.dcdm.DeepConjugateDirection",
            "understudy.models.inverse.direction_network.DirectionNetwork",
            "understudy.models.inverse.ritz.RitzVectors",
            "understudy.models.inverse.krylov.IncompleteCholesky",
        ),
        reproduction="understudy.reproduce.deep_conjugate_direction",
    ),
    System(
        slug="dgno",
        title=(
            "A Novel Physics-aware Neural Operator for Solving Forward and Inverse PDE Problems "
            "based on Deep, Generative Probabilistic Modeling"
        ),
        authors="Zang, Koutsourelakis",
        year=2025,
        arxiv="2502.06250",
        stage="model",
        replaces=(
            "A generative operator, trained without one solved PDE, stands in for repeated solves "
            "and for the Bayesian recovery of a coefficient from sparse noisy data."
        ),
        classes=(
            "understudy.models.operators.dgno.DeepGenerativeNeuralOperator",
            "understudy.models.operators.latent_posterior.LatentPosterior",
            "understudy.models.operators.burgers_dgno.BurgersNeuralOperator",
            "understudy.models.operators.residual_operator.PIDeepONet",
            "understudy.models.operators.residual_operator.PIMultiONet",
            "understudy.models.operators.residual_operator.DifferenceDeepONet",
            "understudy.models.operators.multionet.MultiONet",
            "understudy.models.operators.multionet.VectorMultiONet",
            "understudy.models.operators.multionet.FieldMultiONet",
            "understudy.models.operators.weak_residual.WeakResidual",
        ),
        reproduction="understudy.reproduce.dgno",
    ),
    System(
        slug="functional-prior",
        title="All You Need is a Good Functional Prior for Bayesian Deep Learning",
        authors="Tran, Rossi, Milios, Filippone",
        year=2022,
        arxiv="2011.12829",
        stage="model",
        replaces=(
            "A weight prior fitted so that the network's functions look like a chosen Gaussian "
            "process replaces priors tuned by hand."
        ),
        classes=(
            "understudy.models.tabular.functional_prior.FunctionalPriorMatcher",
            "understudy.models.tabular.functional_prior.FunctionalPrior",
            "understudy.models.tabular.bnn_classifier.BNNClassifier",
            "understudy.nn.layer_priors.GaussianLayerPrior",
            "understudy.nn.layer_priors.HierarchicalLayerPrior",
            "understudy.nn.layer_priors.PlanarFlowLayerPrior",
        ),
        reproduction="understudy.reproduce.functional_prior",
    ),
    System(
        slug="learned-proximal-networks",
        title="What's in a Prior? Learned Proximal Networks for Inverse Problems",
        authors="Fang, Buchanan, Sulam",
        year=2024,
        arxiv="2310.14344",
        stage="model",
        replaces=(
            "A network that is exactly a proximal operator replaces a regulariser made by hand, "
            "and the prior it has learnt can be read off."
        ),
        classes=(
            "understudy.models.inverse.lpn.LearnedProximalNetwork",
            "understudy.models.inverse.icnn.InputConvexNet",
            "understudy.models.inverse.icnn.ConvexConvNet",
            "understudy.models.inverse.proximal_matching.ProximalMatchingLoss",
            "understudy.models.inverse.proximal_matching.fit_lpn",
            "understudy.models.inverse.plug_and_play.pnp_pgd",
            "understudy.models.inverse.plug_and_play.pnp_admm",
            "understudy.models.inverse.plug_and_play.pnp_hqs",
            "understudy.models.inverse.imaging_operators.LinearOperator",
        ),
        reproduction="understudy.reproduce.learned_proximal_networks",
    ),
    System(
        slug="mgno",
        title="MgNO: Efficient Parameterization of Linear Operators via Multigrid",
        authors="He, Liu, Xu",
        year=2024,
        arxiv="2310.19809",
        stage="model",
        replaces=(
            "A neural operator whose linear layers are learnt multigrid V-cycles stands in for an "
            "elliptic or parabolic solver."
        ),
        classes=(
            "understudy.models.operators.mgno.MgNO",
            "understudy.models.operators.mgno.HelmholtzMgNO",
            "understudy.models.operators.mgno.MultigridConv",
            "understudy.models.operators.sobolev.SobolevLoss",
        ),
        reproduction="understudy.reproduce.mgno",
    ),
    System(
        slug="pde-refiner",
        title="PDE-Refiner: Achieving Accurate Long Rollouts with Neural PDE Solvers",
        authors="Lippe, Veeling, Perdikaris, Turner, Brandstetter",
        year=2023,
        arxiv="2308.05732",
        stage="model",
        replaces=(
            "A network whose every step is refined by a short denoising chain stands in for a "
            "time-stepping solver, down to the weak frequencies, and says how long to trust it."
        ),
        classes=(
            "understudy.models.operators.pde_refiner.NoiseSchedule",
            "understudy.models.operators.pde_refiner.PDERefiner",
        ),
        reproduction="understudy.reproduce.pde_refiner",
    ),
    System(
        slug="pfn",
        title="Transformers Can Do Bayesian Inference",
        authors="Müller, Hollmann, Pineda Arango, Grabocka, Hutter",
        year=2022,
        arxiv="2112.10510",
        stage="model",
        replaces=(
            "One pass of a transformer trained on draws of the prior stands in for computing the "
            "posterior predictive anew on each data set."
        ),
        classes=(
            "understudy.core.bars.BarDistribution",
            "understudy.core.posterior.BinnedPosterior",
            "understudy.models.incontext.estimators.PFNClassifier",
            "understudy.models.incontext.estimators.PFNSurrogate",
            "understudy.models.incontext.pfn.PFN",
            "understudy.models.incontext.pretrain.Pretraining",
            "understudy.nn.in_context.PFNTransformer",
        ),
        reproduction="understudy.reproduce.pfn",
    ),
    System(
        slug="pinn-battery-p2d",
        title=(
            "PINN surrogate of Li-ion battery models for parameter inference. Part II: "
            "Regularization and application of the pseudo-2D model"
        ),
        authors="Hassanaly et al.",
        year=2024,
        arxiv="2312.17336",
        stage="model",
        replaces=(
            "A regularised network over time, depth and parameters stands in for the "
            "pseudo-two-dimensional battery solver inside a calibration."
        ),
        classes=(
            "understudy.models.physics.battery_p2d.ChargeBalance",
            "understudy.models.physics.battery_p2d.LithiumInventory",
            "understudy.models.physics.battery_p2d.P2DPINN",
            "understudy.simulate.battery.peer.PyBaMMCell",
        ),
        reproduction="understudy.reproduce.pinn_battery_p2d",
    ),
    System(
        slug="pinn-battery-spm",
        title=(
            "PINN surrogate of Li-ion battery models for parameter inference. Part I: "
            "Implementation and multi-fidelity hierarchies for the single-particle model"
        ),
        authors="Hassanaly, Weddle, King, De, Doostan et al.",
        year=2024,
        arxiv="2312.17329",
        stage="model",
        replaces=(
            "A physics-informed network over time, radius and parameters stands in for the "
            "single-particle battery solver inside a calibration."
        ),
        classes=(
            "understudy.models.physics.pinn.PINN",
            "understudy.models.physics.pinn.Training",
            "understudy.models.physics.jet.Jet",
            "understudy.models.physics.battery_spm.BatteryPINN",
            "understudy.models.physics.battery_spm.HierarchicalPINN",
            "understudy.simulate.battery.spm.SingleParticleModel",
        ),
        reproduction="understudy.reproduce.pinn_battery_spm",
    ),
    System(
        slug="probabilistic-circuits",
        title="Lossless Compression with Probabilistic Circuits",
        authors="Liu, Mandt, Van den Broeck",
        year=2022,
        arxiv="2111.11632",
        stage="model",
        replaces=(
            "A tractable circuit, whose conditionals drive the entropy coder exactly, replaces "
            "slow latent-variable entropy models."
        ),
    ),
    System(
        slug="prose",
        title=(
            "PROSE: Predicting Operators and Symbolic Expressions using Multimodal Transformers"
        ),
        authors="Liu, Zhang, Schaeffer",
        year=2024,
        arxiv="2309.16816",
        stage="model",
        replaces=(
            "One transformer forecasts the trajectory and writes the equation for a family of "
            "systems, in place of a solver and of a symbolic search."
        ),
        classes=(
            "understudy.models.operators.prose.PROSE",
            "understudy.models.operators.prose_network.PROSENetwork",
            "understudy.models.operators.equation_tokens.ExpressionTokenizer",
            "understudy.core.expressions.ExpressionList",
            "understudy.simulate.ode_families.ODEFamily",
        ),
        reproduction="understudy.reproduce.prose",
    ),
    System(
        slug="s-kan",
        title="Activation Space Selectable Kolmogorov-Arnold Networks",
        authors="Yang, Zhang, Luo, Lu, Shen",
        year=2024,
        arxiv="2408.08338",
        stage="model",
        replaces=(
            "A Kolmogorov-Arnold network that chooses its function family at every node replaces "
            "one whose single family was guessed."
        ),
    ),
    System(
        slug="scale-mixture-nngp",
        title="Scale Mixtures of Neural Network Gaussian Processes",
        authors="Lee, Yun, Yang, Lee",
        year=2022,
        arxiv="2107.01408",
        stage="model",
        replaces=(
            "A heavy-tailed process in closed form stands in for an infinitely wide Bayesian "
            "network."
        ),
        classes=(
            "understudy.models.tabular.scale_mixture.StudentTProcess",
            "understudy.models.tabular.scale_mixture.ScaleMixtureSurrogate",
            "understudy.models.tabular.sparse_t_process.SparseTProcessClassifier",
            "understudy.nn.infinite_width.NNGPKernel",
            "understudy.nn.infinite_width.NTKKernel",
            "understudy.nn.wide_network.sample_wide_network",
        ),
        reproduction="understudy.reproduce.scale_mixture_nngp",
    ),
    System(
        slug="sound-operator",
        title=(
            "Sound propagation in realistic interactive 3D scenes with parameterized sources "
            "using deep neural operators"
        ),
        authors="Borrel-Jensen, Goswami, Engsig-Karup, Karniadakis, Jeong",
        year=2024,
        arxiv="2308.05141",
        stage="model",
        replaces=(
            "A DeepONet evaluated in milliseconds stands in for a wave-equation run at every "
            "source position and for tables of impulse responses."
        ),
        classes=(
            "understudy.models.operators.sound.SoundOperator",
            "understudy.models.operators.deeponet.ModifiedMLP",
            "understudy.simulate.acoustics.RoomAcoustics",
            "understudy.simulate.acoustics.RationalAdmittance",
        ),
        reproduction="understudy.reproduce.sound_operator",
    ),
    System(
        slug="spikepoint",
        title=(
            "SpikePoint: An Efficient Point-based Spiking Neural Network for Event Cameras "
            "Action Recognition"
        ),
        authors="Ren, Zhou, Lin, Huang, Fu, Song, Cheng",
        year=2024,
        arxiv="2310.07189",
        stage="model",
        replaces=(
            "A small spiking network on the points of an event stream stands in for dense "
            "networks on frames or voxels."
        ),
    ),
    System(
        slug="ssvi",
        title=("Training Bayesian Neural Networks with Sparse Subspace Variational Inference"),
        authors="Li, Miao, Qiu, Zhang",
        year=2024,
        arxiv="2402.11025",
        stage="model",
        replaces=(
            "A Bayesian network that keeps a small share of its weights from the first step to the "
            "last replaces dense mean-field inference with twice the parameters."
        ),
        classes=(
            "understudy.models.tabular.sparse_bayesian.SparseBayesianSurrogate",
            "understudy.models.tabular.sparse_bayesian.SparseBayesianClassifier",
            "understudy.nn.sparse_bayesian.bayesianize",
            "understudy.nn.sparse_subspace.SubspaceScheduler",
            "understudy.nn.sparse_training.SparseSubspaceInference",
            "understudy.nn.sparse_compact.CompactNetwork",
        ),
        reproduction="understudy.reproduce.ssvi",
    ),
    System(
        slug="wide-deep-optimal",
        title="Wide and Deep Neural Networks Achieve Optimality for Classification",
        authors="Radhakrishnan, Belkin, Uhler",
        year=2023,
        arxiv="2204.14126",
        stage="model",
        replaces=(
            "The closed-form kernel limit stands in for training an infinitely wide and deep "
            "classifier, and says beforehand what it becomes."
        ),
        classes=(
            "understudy.models.tabular.wide_deep.InfiniteDepthClassifier",
            "understudy.models.tabular.wide_deep.HilbertEstimator",
            "understudy.nn.dual_activation.HermiteActivation",
            "understudy.nn.dual_activation.classify_limit",
            "understudy.nn.dual_activation.optimal_activation",
        ),
        reproduction="understudy.reproduce.wide_deep_optimal",
    ),
    # -- train --------------------------------------------------------------------------------
    System(
        slug="comp-sum-losses",
        title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
        authors="Mao, Mohri, Zhong",
        year=2023,
        arxiv="2304.07288",
        stage="train",
        replaces=(
            "A family of smooth losses with one parameter stands in for the 0-1 loss, with a "
            "tight conversion from its excess risk."
        ),
    ),
    System(
        slug="forward-gnn",
        title="Forward Learning of Graph Neural Networks",
        authors="Park, Wang, Simoulin, Yang, Yang, Rossi, Trivedi, Ahmed",
        year=2024,
        arxiv="2403.11004",
        stage="train",
        replaces=(
            "Forward training of each layer by itself replaces backpropagation through a graph "
            "network and the activations it must keep."
        ),
    ),
    System(
        slug="gbnn",
        title="Sequential Training of Neural Networks with Gradient Boosting",
        authors="Emami, Martínez-Muñoz",
        year=2023,
        arxiv="1909.12098",
        stage="train",
        replaces=(
            "Boosting small blocks of neurons replaces training the whole network at once, and "
            "any prefix of the blocks can be served."
        ),
    ),
    System(
        slug="guidance",
        title=(
            "Training the Untrainable: Introducing Inductive Bias via Representational Alignment"
        ),
        authors="Subramaniam, Mayo, Conwell, Poggio, Katz, Cheung, Barbu",
        year=2025,
        arxiv="2410.20035",
        stage="train",
        replaces=(
            "Alignment with the layers of another network lends an ill-suited one its inductive "
            "bias, in place of a new architecture."
        ),
    ),
    System(
        slug="linear-eval-naive-bayes",
        title=("Revisiting Discriminative vs. Generative Classifiers: Theory and Implications"),
        authors="Zheng, Wu, Bao, Cao, Li, Zhu",
        year=2023,
        arxiv="2302.02334",
        stage="train",
        replaces=(
            "A closed-form naive Bayes head on frozen features stands in for a logistic "
            "regression trained by iteration, with fewer labels."
        ),
    ),
    System(
        slug="mip-hypernetworks",
        title="Magnitude Invariant Parametrizations Improve Hypernetwork Learning",
        authors="Gonzalez Ortiz, Guttag, Dalca",
        year=2024,
        arxiv="2304.07645",
        stage="train",
        replaces=(
            "One hypernetwork with constant-norm inputs stands in for a family of networks "
            "trained one hyper-parameter at a time."
        ),
    ),
    System(
        slug="pdlt",
        title="The Principles of Deep Learning Theory",
        authors="Roberts, Yaida, Hanin",
        year=2022,
        arxiv="2106.10165",
        stage="train",
        replaces=(
            "Recursions from layer to layer predict how a network starts and learns, in place of "
            "trying initialisations, learning rates and shapes."
        ),
        classes=(
            "understudy.nn.criticality.find_critical_point",
            "understudy.nn.signal_propagation.SignalPropagation",
            "understudy.nn.signal_propagation.optimal_aspect_ratio",
            "understudy.nn.critical_initialisation.critical_init_",
            "understudy.nn.critical_initialisation.equivalent_learning_rates",
            "understudy.nn.initialisation_audit.audit_initialisation",
        ),
        reproduction="understudy.reproduce.pdlt",
    ),
    System(
        slug="self-tuning-networks",
        title=(
            "Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured "
            "Best-Response Functions"
        ),
        authors="MacKay, Vicol, Lorraine, Duvenaud, Grosse",
        year=2019,
        arxiv="1903.03088",
        stage="train",
        replaces=(
            "One training run, of weights that respond to the hyper-parameters, stands in for the "
            "outer loop of a hyper-parameter search."
        ),
    ),
    # -- search -------------------------------------------------------------------------------
    System(
        slug="auto-gnn",
        title="Auto-GNN: Neural Architecture Search of Graph Neural Networks",
        authors="Zhou, Song, Huang, Hu",
        year=2019,
        arxiv="1909.03184",
        stage="search",
        replaces=(
            "Small mutations of the best graph network, which inherit weights where that is safe, "
            "replace training every candidate from scratch."
        ),
    ),
    System(
        slug="bnn-bo",
        title="A Study of Bayesian Neural Network Surrogates for Bayesian Optimization",
        authors="Li, Rudner, Wilson",
        year=2024,
        arxiv="2305.20028",
        stage="search",
        replaces=(
            "A posterior over functions, from one of seven interchangeable surrogates, stands in "
            "for an expensive black-box objective."
        ),
        classes=(
            "understudy.search.bayesopt.loop.BayesOptLoop",
            "understudy.models.tabular.bnn_study.study_surrogates",
            "understudy.models.tabular.bnn_study.ensemble.ModeEnsemble",
            "understudy.models.tabular.bnn_study.laplace.LinearisedLaplace",
            "understudy.models.tabular.bnn_study.deep_kernel.DeepKernelProcess",
            "understudy.models.tabular.bnn_study.infinite_width.FixedNetworkProcess",
            "understudy.models.tabular.hmc.HMCSurrogate",
            "understudy.models.tabular.sghmc.SGHMCSurrogate",
        ),
        reproduction="understudy.reproduce.bnn_bo",
    ),
    System(
        slug="darts-pt",
        title="Rethinking Architecture Selection in Differentiable NAS",
        authors="Wang, Cheng, Chen, Tang, Hsieh",
        year=2021,
        arxiv="2108.04392",
        stage="search",
        replaces=(
            "Masking each operation of one weight-sharing supernet stands in for training every "
            "choice to convergence."
        ),
    ),
    System(
        slug="dass",
        title="DASS: Differentiable Architecture Search for Sparse Neural Networks",
        authors="Mousavi, Loni, Alibeigi, Daneshtalab",
        year=2023,
        arxiv="2207.06968",
        stage="search",
        replaces=(
            "A search for the cell that is best once 90 to 99 % of its weights are gone replaces "
            "searching dense and pruning afterwards."
        ),
    ),
    System(
        slug="evonorm",
        title="Evolving Normalization-Activation Layers",
        authors="Liu, Brock, Simonyan, Le",
        year=2020,
        arxiv="2004.02967",
        stage="search",
        replaces=(
            "Evolution with cheap rejection tests on small models replaces normalisation layers "
            "designed by hand and the full training of every candidate."
        ),
    ),
    System(
        slug="flexibert",
        title=("FlexiBERT: Are Current Transformer Architectures too Homogeneous and Rigid?"),
        authors="Tuli, Dedhia, Tuli, Jha",
        year=2023,
        arxiv="2205.11656",
        stage="search",
        replaces=(
            "A neural surrogate with both kinds of uncertainty over graph embeddings stands in "
            "for pre-training and fine-tuning each transformer."
        ),
    ),
    System(
        slug="hardware-aware-nas",
        title=("A Hardware-Aware System for Accelerating Deep Neural Network Optimization"),
        authors="Sarah, Cummings, Sridhar, Sundaresan, Szankin, Webb, Munoz",
        year=2022,
        arxiv="2202.12954",
        stage="search",
        replaces=(
            "Predictors fitted on the few sub-networks that were measured stand in for validating "
            "and timing all of them."
        ),
    ),
    System(
        slug="instinct",
        title=(
            "Use Your INSTINCT: INSTruction optimization for LLMs usIng Neural bandits Coupled "
            "with Transformers"
        ),
        authors="Lin, Wu, Dai, Hu, Shu, Ng, Jaillet, Low",
        year=2024,
        arxiv="2310.02905",
        stage="search",
        replaces=(
            "A small network on an open transformer's hidden state stands in for paid evaluations "
            "of an instruction, and a bandit chooses the next."
        ),
    ),
    System(
        slug="lc-pfn",
        title=("Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted Networks"),
        authors="Adriaensen, Rakotoarison, Müller, Hutter",
        year=2023,
        arxiv="2310.20447",
        stage="search",
        replaces=(
            "One transformer pass stands in for the rest of a training run and for the MCMC fit "
            "of a parametric curve."
        ),
        classes=(
            "understudy.models.incontext.lcpfn.LCPFN",
            "understudy.models.incontext.curve_prior.CurvePrior",
            "understudy.models.incontext.curve_normaliser.CurveNormaliser",
            "understudy.models.incontext.curve_mcmc.MCMCExtrapolator",
            "understudy.search.early_stopping.PredictiveStopper",
            "understudy.search.early_stopping.LearningCurvePruner",
        ),
        reproduction="understudy.reproduce.lc_pfn",
    ),
    System(
        slug="neas",
        title=(
            "One-Shot Neural Ensemble Architecture Search by Diversity-Guided Search Space "
            "Shrinking"
        ),
        authors="Chen, Peng, Fu, Ling",
        year=2021,
        arxiv="2104.00597",
        stage="search",
        replaces=(
            "One weight-sharing supernet with many paths, shrunk by a cheap score of diversity, "
            "stands in for training and ranking whole ensembles."
        ),
    ),
    System(
        slug="neural-contextual-bandits",
        title="Contextual Bandits with Online Neural Regression",
        authors="Deb, Ban, Zuo, He, Banerjee",
        year=2024,
        arxiv="2312.07145",
        stage="search",
        replaces=(
            "One network regressed online, sampled by inverse gaps, stands in for trying every "
            "action and for confidence sets over all weights."
        ),
    ),
    System(
        slug="pooling-supernets",
        title="Balanced Mixture of SuperNets for Learning the CNN Pooling Architecture",
        authors="Javan Roshtkhari, Toews, Pedersoli",
        year=2023,
        arxiv="2306.11982",
        stage="search",
        replaces=(
            "A small mixture of weight-sharing supernets stands in for training every pooling "
            "layout of a convolutional network."
        ),
    ),
    System(
        slug="quantnas",
        title=(
            "QuantNAS for super resolution: searching for efficient quantization-friendly "
            "architectures against quantization noise"
        ),
        authors="Shvetsov, Osin, Koryakovskiy, Buchnev, Burnaev, Zaytsev",
        year=2024,
        arxiv="2208.14839",
        stage="search",
        replaces=(
            "One differentiable supernet trained under additive noise stands in for training and "
            "quantising every super-resolution candidate."
        ),
    ),
    System(
        slug="random-sparse-search",
        title=("Random Search as a Baseline for Sparse Neural Network Architecture Search"),
        authors="Farahani",
        year=2024,
        arxiv="2403.08265",
        stage="search",
        replaces=(
            "Nothing: it is the control that any learnt search for a sparse sub-network must beat."
        ),
    ),
    System(
        slug="sharpdarts",
        title=("sharpDARTS: Faster and More Accurate Differentiable Architecture Search"),
        authors="Hundt, Jain, Hager",
        year=2019,
        arxiv="1903.09900",
        stage="search",
        replaces=(
            "One differentiable supernet stands in for a hand-tuned block and schedule and for a "
            "grid of trained networks."
        ),
    ),
    System(
        slug="simq-nas",
        title=("SimQ-NAS: Simultaneous Quantization Policy and Neural Architecture Search"),
        authors="Sridhar, Szankin, Chen, Sundaresan, Sarah",
        year=2023,
        arxiv="2312.13301",
        stage="search",
        replaces=(
            "Predictors in one joint search stand in for quantising, validating and timing each "
            "pair of sub-network and precision policy."
        ),
    ),
    System(
        slug="vit-resnas",
        title="Searching for Efficient Multi-Stage Vision Transformers",
        authors="Liao, Karaman, Sze",
        year=2021,
        arxiv="2109.00642",
        stage="search",
        replaces=(
            "One super-network, whose slices are ranked directly, stands in for training vision "
            "transformers of every size."
        ),
    ),
    # -- compress -----------------------------------------------------------------------------
    System(
        slug="hessian-mixed-precision",
        title=(
            "Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision "
            "Post-Training Quantization"
        ),
        authors=("Schaefer, Lambert-Shirzad, Zhang, Chou, Jablin, Li, Guo, Stanton, Joshi, Wang"),
        year=2023,
        arxiv="2306.04879",
        stage="compress",
        replaces=(
            "One ordering of the layers by sensitivity, searched by bisection, stands in for the "
            "exponential search over bit-widths."
        ),
    ),
    System(
        slug="n2n",
        title=(
            "N2N Learning: Network to Network Compression via Policy Gradient Reinforcement "
            "Learning"
        ),
        authors="Ashok, Rhinehart, Beainy, Kitani",
        year=2018,
        arxiv="1709.06030",
        stage="compress",
        replaces=(
            "A small student, carved out of its teacher by two learnt policies, stands in for the "
            "big trained network."
        ),
    ),
    System(
        slug="phnn",
        title=("PHNNs: Lightweight Neural Networks via Parameterized Hypercomplex Convolutions"),
        authors="Grassucci, Zhang, Comminiello",
        year=2022,
        arxiv="2110.04176",
        stage="compress",
        replaces=(
            "A learnt sum of n Kronecker products, with about 1/n of the parameters, stands in "
            "for dense weights."
        ),
    ),
    System(
        slug="quantization-toolkit",
        title=("A Survey of Quantization Methods for Efficient Neural Network Inference"),
        authors="Gholami, Kim, Dong, Yao, Mahoney, Keutzer",
        year=2021,
        arxiv="2103.13630",
        stage="compress",
        replaces="A network of 8, 4, 2 or 1 bits stands in for the floating-point one.",
    ),
    System(
        slug="snnk",
        title="Scalable Neural Network Kernels",
        authors="Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov",
        year=2024,
        arxiv="2310.13225",
        stage="compress",
        replaces=(
            "A product of separate random features of weights and inputs stands in for "
            "feed-forward layers, and folds whole ones into a single matrix."
        ),
    ),
    System(
        slug="stitchable",
        title="Stitchable Neural Networks",
        authors="Pan, Cai, Zhuang",
        year=2023,
        arxiv="2302.06586",
        stage="compress",
        replaces=(
            "One network stitched from two pretrained sizes, switched at run time, stands in for "
            "a set of separately trained ones."
        ),
    ),
    System(
        slug="wave-cnn-compression",
        title=("A priori compression of convolutional neural networks for wave simulators"),
        authors="Boukraichi, Akkari, Casenave, Ryckelynck",
        year=2023,
        arxiv="2304.04964",
        stage="compress",
        replaces=(
            "Products of one-way filters, fixed before training, stand in for the dense kernels "
            "of a network that itself stands in for a wave solver."
        ),
        classes=(
            "understudy.nn.one_way_conv.OneWayConv1d",
            "understudy.nn.one_way_conv.OneWayConv2d",
            "understudy.nn.one_way_conv.OneWayConv3d",
            "understudy.nn.one_way_conv.OneWayConvTranspose2d",
            "understudy.nn.one_way_network.OneWayPlan",
            "understudy.compress.a_priori.compress_a_priori",
            "understudy.compress.a_priori.truncate",
            "understudy.models.operators.wave_cnn.WaveCNN",
            "understudy.models.operators.parametric_decoder.ParametricDecoder",
            "understudy.models.operators.one_way.OneWayNetwork",
            "understudy.simulate.wave.WaveFEM2D",
            "understudy.simulate.elastic.ElasticFEM2D",
            "understudy.simulate.pde.wave.Wave",
            "understudy.simulate.pde.elastic_wave.ElasticWave",
            "understudy.simulate.pde.driven_wave.DrivenWave",
        ),
        reproduction="understudy.reproduce.wave_cnn_compression",
    ),
    # -- audit --------------------------------------------------------------------------------
    System(
        slug="bayesian-transfer-attack",
        title=("Efficient and Transferable Adversarial Examples from Bayesian Neural Networks"),
        authors="Gubri, Cordy, Papadakis, Le Traon, Sen",
        year=2022,
        arxiv="2011.05074",
        stage="audit",
        replaces=(
            "Weight samples along one cyclical stochastic-gradient chain stand in for an ensemble "
            "of networks trained one by one to attack an unseen model."
        ),
    ),
    System(
        slug="few-shot-extraction",
        title=("Few-shot Model Extraction Attacks against Sequential Recommender Systems"),
        authors="Zhang, Liu",
        year=2024,
        arxiv="2411.11677",
        stage="audit",
        replaces=(
            "A copy trained from a tenth of the logs and synthetic queries stands in for a "
            "recommender that answers with lists only, and shows how well it can be cloned."
        ),
    ),
    System(
        slug="interpretable-surrogate",
        title=("Interpreting Black-box Machine Learning Models for High Dimensional Datasets"),
        authors="Karim, Shajalal, Grass, Doehmen, Chala, Boden, Beecks, Decker",
        year=2023,
        arxiv="2208.13405",
        stage="audit",
        replaces=(
            "A tree, forest or boosted ensemble on the leading features, of measured fidelity, "
            "stands in for an opaque network on thousands."
        ),
    ),
    System(
        slug="lokt",
        title="Label-Only Model Inversion Attacks via Knowledge Transfer",
        authors="Nguyen, Chandrasegaran, Abdollahzadeh, Cheung",
        year=2023,
        arxiv="2310.19342",
        stage="audit",
        replaces=(
            "Open classifiers distilled through generated queries stand in for one that answers "
            "with labels only, so that its privacy can be tested by gradients."
        ),
    ),
    System(
        slug="neural-specifications",
        title="Towards Reliable Neural Specifications",
        authors="Geng, Le, Xu, Wang, Gurfinkel, Si",
        year=2023,
        arxiv="2210.16114",
        stage="audit",
        replaces=(
            "Mined activation patterns, as certificates of where a network may be trusted, "
            "replace tiny certified balls around single inputs."
        ),
    ),
    # -- retrieve -----------------------------------------------------------------------------
    System(
        slug="adanns",
        title="AdANNS: A Framework for Adaptive Semantic Search",
        authors="Rege, Kusupati, Ranjit S, Fan, Cao, Kakade, Jain, Farhadi",
        year=2023,
        arxiv="2305.19435",
        stage="retrieve",
        replaces=(
            "Prefixes of a nested embedding, as wide as each stage of the index needs, stand in "
            "for full-width vectors everywhere."
        ),
    ),
    System(
        slug="hnsw-recall",
        title=(
            "The Impacts of Data, Ordering, and Intrinsic Dimensionality on Recall in "
            "Hierarchical Navigable Small Worlds"
        ),
        authors="Elliott, Clark",
        year=2024,
        arxiv="2405.17813",
        stage="retrieve",
        replaces=(
            "Audits graph search as a stand-in for exact neighbours: predicts its recall from the "
            "data and improves it by the order of insertion."
        ),
    ),
    System(
        slug="neural-ranking",
        title="A Deep Look into Neural Ranking Models for Information Retrieval",
        authors="Guo, Fan, Pang, Yang, Ai, Zamani, Wu, Croft, Cheng",
        year=2020,
        arxiv="1903.06902",
        stage="retrieve",
        replaces=(
            "Cheap learnt scores behind a first-stage retriever stand in for human judgement of "
            "relevance and for an expensive cross-encoder."
        ),
    ),
)
