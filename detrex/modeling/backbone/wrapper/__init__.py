"""Any network of another library as a detectron2 backbone."""
