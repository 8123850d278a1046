module taskrun-operator/control-plane/launcher

go 1.26.0
