# Installs what the active project names, then IJulia in a project of its own, and its kernel for the former.
import Pkg

project = ENV["JULIA_PROJECT"]
if isfile(joinpath(project, "Project.toml")) || isfile(joinpath(project, "JuliaProject.toml"))
    Pkg.instantiate()
    Pkg.precompile()
end

open(joinpath(mkpath("/opt/hpcbinder/packages"), "julia.json"), "w") do io
    rows = sort([(p.name, p.version) for p in values(Pkg.dependencies()) if p.version !== nothing])
    print(io, "[", join(["{\"name\": \"$n\", \"version\": \"$v\"}" for (n, v) in rows], ",\n"), "]\n")
end

Pkg.activate("/opt/julia/ijulia")
Pkg.add("IJulia")
Pkg.precompile()
@eval using IJulia
# Not the name it gives by itself, which its own build took already.
Base.invokelatest(IJulia.installkernel, "Julia", "--project=$project")
