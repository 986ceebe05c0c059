"""Why a row that runs can get no further token."""

from __future__ import annotations

from umbel.ir.request import RowError

NOT_FINITE = RowError("non_finite_logits", "the model gave logits that are not finite", type="server_error", status=500)
NO_TOKEN_LEFT = RowError("no_token_left", "what the row asks for leaves no token that could be drawn next")
ALL_BANNED = RowError(
    "invalid_value",
    "min_tokens bans the tokens that end the row, and the model has no others: lower min_tokens or give fewer "
    "stop_token_ids",
    "min_tokens",
)
