# nix run . -- run hello64. Evaluated with a stub of nixpkgs, and never built: its authors have no nixpkgs.
{
  description = "A mini-hypervisor that boots small x86 guests, every legacy device in its own sandboxed process";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  outputs = { self, nixpkgs }:
    let
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      python = pkgs.python3;
      kvmbox = python.pkgs.buildPythonPackage {
        pname = "kvmbox";
        version = "0.1.0";
        pyproject = true;
        src = self;
        build-system = with python.pkgs; [ click click-man cython hatchling ];
        dependencies = with python.pkgs; [ click pyelftools seccomp ];
        pythonRemoveDeps = [ "pyseccomp" ]; # libseccomp's own binding does the same
        dontStrip = true; # guests are programs for another machine
        dontWrapPythonPrograms = true; # the launcher reads the first line of the script beside it
        pythonImportsCheck = [ "kvmbox" ];
      };
      environment = python.withPackages (_: [ kvmbox ]);
    in {
      packages.x86_64-linux.default = environment;
      apps.x86_64-linux.default = { type = "app"; program = "${environment}/bin/kvmbox"; };
    };
}
