// Products with weights of any type: each type has a unit of its own, linear_*.cpp.
#include "cpu/unit.inl"

namespace ke::cpu::KE_ISA {

void linear_f32(const LinearTask& task);
void linear_f16(const LinearTask& task);
void linear_bf16(const LinearTask& task);
void linear_q8_0(const LinearTask& task);
void linear_q4_0(const LinearTask& task);
void linear_q4_1(const LinearTask& task);
void linear_q5_0(const LinearTask& task);
void linear_q5_1(const LinearTask& task);
void linear_q2_k(const LinearTask& task);
void linear_q3_k(const LinearTask& task);
void linear_q4_k(const LinearTask& task);
void linear_q5_k(const LinearTask& task);
void linear_q6_k(const LinearTask& task);
void linear_i8(const LinearTask& task);
void linear_iq4_nl(const LinearTask& task);
void linear_iq4_xs(const LinearTask& task);

void linear(const LinearTask* task) {
  switch (task->type) {
    case PanelType::F32:
      return linear_f32(*task);
    case PanelType::F16:
      return linear_f16(*task);
    case PanelType::BF16:
      return linear_bf16(*task);
    case PanelType::Q8_0:
      return linear_q8_0(*task);
    case PanelType::Q4_0:
      return linear_q4_0(*task);
    case PanelType::Q4_1:
      return linear_q4_1(*task);
    case PanelType::Q5_0:
      return linear_q5_0(*task);
    case PanelType::Q5_1:
      return linear_q5_1(*task);
    case PanelType::Q2_K:
      return linear_q2_k(*task);
    case PanelType::Q3_K:
      return linear_q3_k(*task);
    case PanelType::Q4_K:
      return linear_q4_k(*task);
    case PanelType::Q5_K:
      return linear_q5_k(*task);
    case PanelType::Q6_K:
      return linear_q6_k(*task);
    case PanelType::IQ4_NL:
      return linear_iq4_nl(*task);
    case PanelType::IQ4_XS:
      return linear_iq4_xs(*task);
#ifndef KE_QUANT_TILES
    case PanelType::I8:
      return linear_i8(*task);
#endif
    default:
      return;
  }
}

}  // namespace ke::cpu::KE_ISA
