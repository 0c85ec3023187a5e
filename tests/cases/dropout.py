"""Dropout of elements and of channels. The tests seed the generator before each call."""

from tests.cases import Case, ModuleCase

DRAWS = "maps over forward mode, in which torch draws no random numbers; see test_dropout.py"
ELEMENTS = {"the_order_in_memory_changes_no_number": "elements are dropped in the order in which they lie, as in torch"}
RANDOM = {"first_derivatives": f"gradcheck {DRAWS}", "jacobian_and_hessian": f"torch.func.hessian {DRAWS}"}

CASES = [
    Case("dropout", lambda F, x: F.dropout(x, 0.3), ((4, 5),), leave_out=RANDOM | ELEMENTS),
    Case("dropout of nothing", lambda F, x: F.dropout(x, 0.3, training=False) * 1, ((4, 5),)),
    Case("dropout of everything", lambda F, x: F.dropout(x, 1.0), ((4, 5),)),
    Case("dropout1d", lambda F, x: F.dropout1d(x, 0.4), ((3, 4, 2),), leave_out=RANDOM),
    Case("dropout1d unbatched", lambda F, x: F.dropout1d(x, 0.4), ((4, 2),), leave_out=RANDOM),
    Case("dropout2d", lambda F, x: F.dropout2d(x, 0.4), ((2, 4, 2, 3),), leave_out=RANDOM),
    Case("dropout3d", lambda F, x: F.dropout3d(x, 0.4), ((2, 4, 2, 1, 2),), leave_out=RANDOM),
    Case("alpha_dropout", lambda F, x: F.alpha_dropout(x, 0.3, training=True), ((4, 5),), leave_out=RANDOM | ELEMENTS),
    Case(
        "feature_alpha_dropout",
        lambda F, x: F.feature_alpha_dropout(x, 0.3, training=True),
        ((3, 4, 2),),
        leave_out=RANDOM,
    ),
]

MODULE_CASES = [
    ModuleCase("Dropout", lambda nn: nn.Dropout(0.3), ((4, 5),)),
    ModuleCase("Dropout evaluation", lambda nn: nn.Dropout(0.3).eval(), ((4, 5),)),
    ModuleCase("Dropout1d", lambda nn: nn.Dropout1d(0.3), ((3, 4, 5),)),
    ModuleCase("Dropout2d", lambda nn: nn.Dropout2d(0.3), ((3, 4, 5, 2),)),
    ModuleCase("Dropout3d", lambda nn: nn.Dropout3d(0.3), ((3, 4, 5, 2, 2),)),
    ModuleCase("AlphaDropout", lambda nn: nn.AlphaDropout(0.3), ((4, 5),)),
    ModuleCase("FeatureAlphaDropout", lambda nn: nn.FeatureAlphaDropout(0.3), ((3, 4, 5),)),
]
