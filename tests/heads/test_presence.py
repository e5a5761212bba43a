"""The presence head: what it reads, what its gradient reaches, its loss."""

import torch
from torch.nn import functional

from zoo.heads.presence import PresenceHead, mask_statistics, presence_loss


def test_the_statistics_are_those_of_the_mask():
    logits = torch.full((2, 4, 4), -20.0)
    logits[0, :2, :2] = 30.0
    highest, mean, share = mask_statistics(logits).unbind(dim=1)
    torch.testing.assert_close(highest, torch.tensor([3.0, -2.0]))
    torch.testing.assert_close(mean[0], torch.tensor(3.0))
    torch.testing.assert_close(share[0], torch.tensor(4 / 16).log() / 10)
    assert share[1] < share[0] and torch.isfinite(mean).all()


def test_the_gradient_reaches_the_hidden_state_and_not_the_mask():
    torch.manual_seed(0)
    head = PresenceHead(6, width=8)
    states, masks = torch.randn(3, 6, requires_grad=True), torch.randn(3, 4, 4, requires_grad=True)
    presence_loss(head(states, masks), torch.tensor([1.0, 0.0, 1.0])).backward()
    assert states.grad is not None and states.grad.abs().sum(dim=1).gt(0).all() and masks.grad is None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@torch.no_grad()
def test_scores_depend_on_the_mask():
    torch.manual_seed(0)
    head, states = PresenceHead(6), torch.randn(1, 6).expand(2, -1)
    first, second = head(states, torch.stack([torch.full((4, 4), -9.0), torch.full((4, 4), 9.0)]))
    assert abs(float(first - second)) > 1e-3


def test_the_loss_is_the_mean_cross_entropy_and_zero_without_tokens():
    logits, present = torch.tensor([0.3, -1.0]), torch.tensor([1.0, 0.0])
    expected = -(torch.sigmoid(logits[0]).log() + (1 - torch.sigmoid(logits[1])).log()) / 2
    torch.testing.assert_close(presence_loss(logits, present), expected)
    assert presence_loss(logits[:0], present[:0]) == 0


def test_it_learns_to_tell_present_from_absent():
    torch.manual_seed(0)
    head, states = PresenceHead(6), torch.randn(64, 6)
    present, masks = (states[:, 0] > 0).float(), torch.zeros(64, 4, 4)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        presence_loss(head(states, masks), present).backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = ((head(states, masks) > 0).float() == present).float().mean()
        assert accuracy > 0.95 and functional.sigmoid(head(states, masks)).std() > 0.2
