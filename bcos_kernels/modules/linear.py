from bcos_kernels.modules.conv import BcosLinear
