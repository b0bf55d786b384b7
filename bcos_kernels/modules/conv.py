from torch import nn
from torch.nn import functional as F

from bcos_kernels.mode import primal, weigh


class NormedConv2d(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        w = w / w.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return F.conv2d(x, w, None, self.stride, self.padding)


class BcosConv2d(nn.Module):
    def __init__(self, i, o, kernel_size=1, stride=1, padding=0, b=2.0):
        super().__init__()
        self.linear = NormedConv2d(i, o, kernel_size, stride, padding, bias=False)
        self.b = b

    def forward(self, x):
        y = self.linear(x)
        if self.b == 1:
            return y
        xp = primal(x)
        yp = primal(y)
        k = self.linear.kernel_size[0]
        n2 = xp.pow(2).sum(1, keepdim=True)
        if k > 1:
            n2 = F.avg_pool2d(n2, k, self.linear.stride, self.linear.padding, divisor_override=1)
        n = (n2 + 1e-6).sqrt()
        u = yp.abs() / n
        s = u if self.b == 2 else (u + 1e-6) ** (self.b - 1)
        return weigh(y, s)
